/** Records of volumes. Types, not interfaces, so that each is a Canonical to the compiler. */
import type { Actor, PolicyFacts, RefusalFacts } from './record-facts.ts'

type VolumeId = { readonly tenant: string; readonly volume: string }

export type VolumeRecords = {
  /** What is done with a volume; nothing of it is without this record's receipt, which spawn checks. */
  'volume.intent': VolumeId & {
    readonly actor: Actor
    readonly policy: PolicyFacts
    readonly operation: 'create' | 'remove' | 'grow' | 'snapshot' | 'restore' | 'export'
    /** Bytes that it is to have; null where the operation has none. */
    readonly size_bytes: number | null
    readonly snapshot: string | null
    /** As in launch.intent. */
    readonly deadline: { readonly boottime_ns: string }
  }
  'volume.refused': VolumeId & {
    readonly actor: Actor
    readonly operation: string
    readonly refusal: RefusalFacts
  }
  'volume.ended': VolumeId & {
    readonly intent_index: number
    /** unknown: spawn, or word of it, was cut off. */
    readonly outcome: 'done' | 'failed' | 'unknown'
    readonly code: string | null
    readonly text: string | null
  }
}
