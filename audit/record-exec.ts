/** Records of processes beside an app. Types, not interfaces, so that each is a Canonical to the compiler. */
import type { Actor, Digest, LaunchId, PolicyFacts, RefusalFacts } from './record-facts.ts'

export type ExecRecords = {
  /** One more process in a running pod; nothing of it reaches the guest without this record's receipt. */
  'exec.intent': LaunchId & {
    readonly actor: Actor
    /** Id of this process in the records after it. */
    readonly exec_id: string
    readonly policy: PolicyFacts
    /** SHA-256 of the canonical request: arguments, environment, directory, user, terminal; or what the errand is. */
    readonly request: Digest
    /** Of the request, what may be known: the arguments after the first may be secrets. */
    readonly program: string
    /** What our own code does in place of a program, which is empty then; absent for a program. */
    readonly errand?: { readonly kind: string; readonly path: string | null }
    readonly user: string | null
    readonly terminal: boolean
    readonly env_names: readonly string[]
    /** As in launch.intent. */
    readonly deadline: { readonly boottime_ns: string }
  }
  'exec.refused': LaunchId & { readonly actor: Actor; readonly refusal: RefusalFacts }
  'exec.ended': LaunchId & {
    readonly exec_id: string
    readonly intent_index: number
    /** As the guest reports it; null when the process, or word of it, was cut off. */
    readonly exit: { readonly how: 'code' | 'signal' | 'oom'; readonly value: number } | null
    readonly reason:
      | 'exit'
      | 'not-started'
      | 'caller-gone'
      | 'pod-ended'
      | 'agent-stopped'
      | 'unknown'
    /** Why it was not started, or what is unknown. */
    readonly text: string | null
    readonly duration_us: number | null
  }
}
