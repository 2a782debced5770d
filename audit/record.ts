/**
 * What is recorded: a closed union of record types and their canonical bytes, which are the log's
 * entries. Old records never change their meaning: a change of content is a new version in `v`.
 *
 * Numbers are integers, 64-bit ones decimal strings; times are RFC 3339 UTC with microseconds;
 * unknown is null, never absent. Values of environment variables and secrets are never recorded.
 * Types, not interfaces, so that every record is a Canonical to the compiler.
 */
import { canonicalBytes } from '../policy/canonical.ts'
import type { ExecRecords } from './record-exec.ts'
import type {
  Actor,
  Digest,
  Folded,
  HostFacts,
  HostPathFacts,
  ImageFacts,
  KvmClass,
  LaunchId,
  Level,
  NetworkFacts,
  PolicyFacts,
  RefusalFacts,
  RestartFacts,
  StoredFileFacts,
  TemplateFacts,
} from './record-facts.ts'
import type { IsolationFacts } from './record-isolation.ts'
import type { VolumeRecords } from './record-volume.ts'

export const RECORD_VERSION = 'casemate.audit/1'
/** Most bytes of a record. Bigger things go in as digests. */
export const RECORD_BYTES_MAX = 16_384

/** Absent from launches that somebody asked for. */
type Restarted = { readonly restart?: RestartFacts }

/** The content of each type, beside the head that every record has. */
export type RecordBodies = ExecRecords &
  VolumeRecords & {
    'launch.requested': LaunchId &
      Restarted & {
        readonly actor: Actor
        readonly image_ref: string
        readonly level_requested: Level | null
        /** Digest of the request's canonical bytes, without credentials. */
        readonly request: Digest
        readonly idempotency_key: Digest | null
      }
    'launch.intent': LaunchId &
      Restarted & {
        readonly trust: 'untrusted' | 'verified' | 'trusted'
        readonly actor: Actor
        readonly image: ImageFacts & {
          readonly config: Digest
          readonly layers: readonly Digest[]
          /** dm-verity root of the merged image, hex. */
          readonly root: string
        }
        readonly policy: PolicyFacts
        readonly isolation: IsolationFacts
        readonly host: HostFacts
        readonly spec: { readonly digest: Digest; readonly size: number }
        /** As in the spec; absent without a network. */
        readonly network?: NetworkFacts
        /** Configs and secrets that it gets; absent without any. */
        readonly files?: readonly StoredFileFacts[]
        /** Volumes and paths of the host that it gets; absent without any. */
        readonly volumes?: readonly { readonly volume: string; readonly read_only: boolean }[]
        readonly host_paths?: readonly HostPathFacts[]
        readonly resources: {
          readonly vcpus: number
          readonly memory_mib: number
          readonly cpu_quota_percent: number
          readonly scratch_bytes: number
          readonly capabilities: readonly string[]
          readonly env_names: readonly string[]
        }
        /** The receipt is a ticket until then: CLOCK_BOOTTIME, decimal nanoseconds. */
        readonly deadline: { readonly boottime_ns: string }
      }
    'launch.started': LaunchId & {
      readonly intent_index: number
      readonly pid: number
      /** As spawn measured it, not as it was planned. */
      readonly spec: Digest
      readonly start_us: number
    }
    'launch.failed': LaunchId &
      Restarted & {
        readonly intent_index: number | null
        readonly stage: string
        readonly code: string
        readonly message: string
      }
    'launch.refused': Restarted & {
      /** Null when no pod had an id yet, as for folded refusals. */
      readonly launch_id: string | null
      readonly tenant: string
      readonly actor: Actor
      readonly image: ImageFacts | null
      readonly level_requested: Level | null
      readonly policy: PolicyFacts | null
      readonly refusal: RefusalFacts
      readonly folded: Folded
    }
    'launch.exited': LaunchId & {
      readonly exit: {
        readonly how: 'code' | 'signal' | 'oom' | 'vmm' | 'failure'
        readonly value: number
        readonly guest_reported: boolean
        readonly cause: string
        readonly text: string | null
      }
      readonly reason: 'exit' | 'stop' | 'unhealthy' | 'timeout' | 'failure' | 'unknown'
      readonly duration_us: number | null
    }
    'launch.orphaned': LaunchId & {
      readonly intent_index: number | null
      /** What recovery found and did. */
      readonly found: 'nothing' | 'running' | 'exited'
      readonly action: 'none' | 'adopted' | 'killed'
      readonly pid: number | null
    }
    /** The agent is about to stop it, as its launch asked for. */
    'launch.unhealthy': LaunchId & {
      readonly action: 'stop' | 'restart'
      /** The last check's, as the guest reports it. */
      readonly answer: {
        readonly how: 'code' | 'signal' | 'timeout' | 'not-asked'
        readonly value: number | null
      }
      /** Wrong answers in a row. */
      readonly failing_streak: number
      readonly since: string
    }
    'launch.stop_requested': LaunchId & {
      readonly actor: Actor
      readonly timeout_ms: number
    }
    'launch.signal_requested': LaunchId & {
      readonly actor: Actor
      /** 1 to 64. */
      readonly signal: number
    }
    /** Somebody is about to write to its standard input. */
    'launch.input_opened': LaunchId & { readonly actor: Actor }
    'launch.pause_requested': LaunchId & { readonly actor: Actor }
    'launch.resume_requested': LaunchId & { readonly actor: Actor }
    'launch.resize_requested': LaunchId & {
      readonly actor: Actor
      /** All bytes of the disk that were asked for. */
      readonly scratch_bytes: number
    }
    /** A pod was removed with its log, of which this was a start; its records stay. */
    'launch.removed': LaunchId & { readonly actor: Actor; readonly reason: 'asked' | 'age' }
    /** Layers that the tenant did not have. */
    'image.pulled': LaunchId & {
      readonly manifest: Digest
      readonly layers: number
      readonly bytes: number
    }
    /** Cached files of images that nobody uses were deleted: for room, or because of their age. */
    'image.evicted': {
      readonly tenant: string
      readonly files: number
      readonly bytes: number
      readonly reason: 'room' | 'age'
    }
    'template.built': TemplateFacts
    /** Built before this agent started, in the same boot of the host, of just this. */
    'template.kept': TemplateFacts
    'tenant.created': {
      readonly tenant: string
      readonly trust: 'untrusted' | 'verified' | 'trusted'
      readonly actor: Actor
      /** Digest of the image rules' canonical bytes, and of the quota's. */
      readonly image_rules: Digest
      readonly quota: Digest
      /** What its pods may reach beside each other. */
      readonly egress: readonly string[]
      readonly ports: readonly string[]
    }
    'tenant.changed': {
      readonly tenant: string
      /** What the request named; the members below are as they are after it. */
      readonly changed: readonly string[]
      readonly trust: 'untrusted' | 'verified' | 'trusted'
      readonly state: 'active' | 'suspended'
      readonly actor: Actor
      readonly image_rules: Digest
      readonly quota: Digest
      readonly egress: readonly string[]
      readonly ports: readonly string[]
    }
    /** A config or secret of a tenant's; a launch.intent that uses it has its version. */
    'file.stored': StoredFileFacts & {
      readonly tenant: string
      readonly actor: Actor
      /** Id of the key that it is encrypted with. */
      readonly key: string
    }
    'file.removed': StoredFileFacts & { readonly tenant: string; readonly actor: Actor }
    /** A policy forbade to store, show or remove one. */
    'file.refused': {
      readonly tenant: string
      readonly actor: Actor
      readonly refusal: RefusalFacts
    }
    /** Nothing of it is left but records. */
    'tenant.deleted': { readonly tenant: string; readonly actor: Actor }
    'token.issued': {
      readonly tenant: string
      readonly actor: Actor
      readonly token: {
        readonly jti: string
        readonly sub: string
        readonly scope: readonly string[]
        readonly expires: string
        /** Key that signed it. */
        readonly key: string
      }
    }
    'token.revoked': {
      readonly tenant: string
      readonly actor: Actor
      readonly token: { readonly jti: string }
    }
    /** Made when findings differ from those on record, at a launch. */
    'host.examined': {
      readonly kvm: KvmClass | null
      /** By id. */
      readonly findings: readonly {
        readonly id: string
        readonly reason: string
        readonly severity: string
      }[]
      /** Of the canonical object of `findings` and `kvm`. */
      readonly digest: Digest
    }
    'host.exception_added': {
      /** Id of a finding; an earlier exception for it is replaced. */
      readonly finding: string
      readonly reason: string
      /** From then on the finding counts again. */
      readonly until: string
      readonly actor: Actor
    }
    'host.exception_removed': { readonly finding: string; readonly actor: Actor }
    'host.drain_started': {
      /** Pods that run then are killed. */
      readonly until: string
      readonly actor: Actor
    }
    /** No pod is left, or those left could not be ended in time. */
    'host.drained': {
      /** Since the drain began. */
      readonly ended: number
      readonly killed: number
      readonly left: number
    }
    'host.drain_ended': { readonly actor: Actor }
    'agent.start': {
      readonly pid: number
      readonly kvm: KvmClass | null
      readonly allow_software_kvm: boolean
      readonly policy: Digest | null
    }
    'agent.stop': { readonly pid: number; readonly reason: string }
    'log.genesis': { readonly origin: string; readonly vkey: string }
    'log.recovered': {
      /** Bytes of the WAL after its last whole batch that were discarded: never acknowledged. */
      readonly truncated_bytes: number
      readonly next_index: number
      /** Records that had gone to the reserve and were appended again. */
      readonly reserve_records: number
    }
  }

export type RecordType = keyof RecordBodies

/** Where and when a record was made. Order is the log's index, never these. */
export type RecordHead = {
  readonly id: string
  readonly time: string
  readonly clock: { readonly boot_id: string; readonly boottime_ns: string }
  readonly node: {
    readonly id: string
    readonly agent: { readonly version: string; readonly digest: Digest | null }
    /** Digest of the agent's configuration. */
    readonly config: Digest | null
  }
}

/** Type and content of a record; the log adds the head. Made by `record`. */
export type RecordBody = {
  readonly [T in RecordType]: { readonly type: T } & RecordBodies[T]
}[RecordType]

/** A whole record. */
export type AuditRecord = { readonly v: typeof RECORD_VERSION } & RecordHead & RecordBody

const RECORD_TYPES: ReadonlySet<string> = new Set(
  Object.keys({
    'launch.requested': 0,
    'launch.intent': 0,
    'launch.started': 0,
    'launch.failed': 0,
    'launch.refused': 0,
    'launch.exited': 0,
    'launch.orphaned': 0,
    'launch.unhealthy': 0,
    'launch.stop_requested': 0,
    'launch.signal_requested': 0,
    'launch.input_opened': 0,
    'launch.pause_requested': 0,
    'launch.resume_requested': 0,
    'launch.resize_requested': 0,
    'launch.removed': 0,
    'image.pulled': 0,
    'image.evicted': 0,
    'exec.intent': 0,
    'exec.refused': 0,
    'exec.ended': 0,
    'volume.intent': 0,
    'volume.refused': 0,
    'volume.ended': 0,
    'template.built': 0,
    'template.kept': 0,
    'tenant.created': 0,
    'tenant.changed': 0,
    'file.stored': 0,
    'file.removed': 0,
    'file.refused': 0,
    'tenant.deleted': 0,
    'token.issued': 0,
    'token.revoked': 0,
    'host.examined': 0,
    'host.exception_added': 0,
    'host.exception_removed': 0,
    'host.drain_started': 0,
    'host.drained': 0,
    'host.drain_ended': 0,
    'agent.start': 0,
    'agent.stop': 0,
    'log.genesis': 0,
    'log.recovered': 0,
  } satisfies Record<RecordType, 0>),
)

export const isRecordType = (type: string): type is RecordType => RECORD_TYPES.has(type)

/** A record larger than RECORD_BYTES_MAX: refused before anything is done for it. */
export class RecordTooLarge extends Error {
  override readonly name = 'RecordTooLarge'
  readonly code = 'AUDIT_RECORD_TOO_LARGE'
  constructor(type: string, bytes: number) {
    super(`a ${type} record of ${bytes} bytes is over the limit of ${RECORD_BYTES_MAX}`)
  }
}

/**
 * The canonical bytes of a record.
 * @throws RecordTooLarge
 * @throws NotCanonical for a value that has no canonical form
 */
export function recordBytes(head: RecordHead, body: RecordBody): Buffer {
  const bytes = Buffer.from(canonicalBytes({ v: RECORD_VERSION, ...head, ...body }))
  if (bytes.length > RECORD_BYTES_MAX) throw new RecordTooLarge(body.type, bytes.length)
  return bytes
}
