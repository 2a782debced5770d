/**
 * What a decision allows, complete: the spec is written from it, and nothing after it decides again.
 */
import type { Charge, FileFacts, HostPathFacts } from './facts.ts'
import type { AcceptedSigner, ResolvedImage } from './image-verdict.ts'
import type { Capability } from './nouns/capability.ts'
import type { Digest } from './nouns/digest.ts'
import type { Egress } from './nouns/egress.ts'
import type { HealthCheck, UnhealthyAction } from './nouns/health.ts'
import type { HostException } from './nouns/host-finding.ts'
import type { IsolationLevel, KvmClass } from './nouns/isolation.ts'
import type { MemoryMib, Vcpus } from './nouns/machine.ts'
import type { MountPath, WantedMount } from './nouns/mount.ts'
import type { Names } from './nouns/names.ts'
import type { Hostname, PodId } from './nouns/pod.ts'
import type { PublishedPort } from './nouns/ports.ts'
import type { Arguments, Environment, User, WorkingDirectory } from './nouns/process.ts'
import type { Signal } from './nouns/signal.ts'
import type { Sysctl } from './nouns/sysctl.ts'
import type { TenantId, Trust } from './nouns/tenant.ts'

/** The five sets of an OCI process, each sorted by name. */
export interface CapabilitySets {
  readonly ambient: readonly Capability[]
  readonly bounding: readonly Capability[]
  readonly effective: readonly Capability[]
  readonly inheritable: readonly Capability[]
  readonly permitted: readonly Capability[]
}

/** As getrlimit(2) names it; decimal text where a number would not be exact. */
export interface ResourceLimit {
  readonly type: string
  readonly soft: number | string
  readonly hard: number | string
}

/** The OCI process section, in the words of the spec. */
export interface PlannedProcess {
  readonly args: Arguments
  readonly env: Environment
  readonly cwd: WorkingDirectory
  readonly user: User
  readonly additionalGids: readonly number[]
  readonly capabilities: CapabilitySets
  readonly rlimits: readonly ResourceLimit[]
  readonly noNewPrivileges: true
  /** What it is sent first when it is told to stop; 1 to 64. */
  readonly stopSignal: Signal
}

/** A token bucket: it starts full, has `burst` once on top, and gets `refill` back in a second. */
export type TokenBucket = {
  readonly capacity: number
  readonly burst: number
  readonly refill: number
}

/** What a device does in one direction; null is not limited. */
export type DeviceRate = {
  readonly operations: TokenBucket | null
  readonly bytes: TokenBucket | null
}

/** Of a card, each way; null is not limited. */
export type NetworkRates = {
  readonly receive: DeviceRate | null
  readonly transmit: DeviceRate | null
}

/** Each disk has the disks' rates for itself; null is not limited. */
export interface DeviceRates {
  readonly diskRead: DeviceRate | null
  readonly diskWrite: DeviceRate | null
  readonly rng: DeviceRate | null
}

/** What is mounted beside the image. */
export type PlannedMount =
  | (Extract<WantedMount, { kind: 'tmpfs' }> & { readonly size: number })
  | Exclude<WantedMount, { kind: 'tmpfs' | 'host' }>
  | (Extract<WantedMount, { kind: 'host' }> & Pick<HostPathFacts, 'ids' | 'exec'>)
  /** One file in memory, which cannot be written. */
  | {
      readonly kind: 'file'
      readonly path: MountPath
      readonly mode: number
      readonly uid: number
      readonly gid: number
      readonly size: number
      /** Which of the request's files it is. */
      readonly file: number
    }
  /** What the image has there, to be written even where the root is read-only. */
  | { readonly kind: 'image'; readonly path: MountPath }
/** How the pod is asked whether it does its work, and what comes of it when it does not. */
export interface PlannedHealth extends HealthCheck {
  /** The agent's to do; the pod does not know. */
  readonly onUnhealthy: UnhealthyAction
}

/** Limits of the VMM process and of waiting for the guest; times in ms, sizes as named. */
export interface PlannedLimits {
  readonly bootMs: number
  readonly bootLogBytes: number
  readonly cpuQuotaPercent: number
  readonly pids: number
  readonly rates: DeviceRates
  readonly stopMs: number
  readonly vmmOverheadMib: number
}

/** Why the plan is allowed, for the record. */
export interface Decision {
  /** Permits of the granted level. */
  readonly policyIds: readonly string[]
  /** Their reasons, in the same order. */
  readonly reasons: readonly string[]
  readonly policySetDigest: Digest
  readonly schemaDigest: Digest
  readonly cedarVersion: string
  readonly imageRuleDigest: Digest
  /** null: the provider has no rule of its own. */
  readonly imageFloorDigest: Digest | null
  /** Of the host's findings at the decision. */
  readonly hostFindingsDigest: Digest
  /** Exceptions without which the host would have been refused. */
  readonly hostExceptions: readonly HostException[]
  /** All levels that were permitted, the strongest first; `level` is one of them. */
  readonly permitted: readonly IsolationLevel[]
  readonly requested: IsolationLevel | null
}

export interface Plan {
  readonly pod: PodId
  readonly tenant: TenantId
  readonly trust: Trust
  readonly level: IsolationLevel
  /** The class of KVM it runs on; null below level vm. */
  readonly kvm: KvmClass | null
  readonly vcpus: Vcpus
  readonly memoryMib: MemoryMib
  readonly charge: Charge
  readonly hostname: Hostname
  readonly image: ResolvedImage & {
    readonly reference: string
    readonly signers: readonly AcceptedSigner[]
  }
  readonly process: PlannedProcess
  /** Name of the seccomp profile of the process; native/ compiles it. */
  readonly seccomp: 'default'
  readonly readOnlyRoot: boolean
  /** In the order in which they are mounted. */
  readonly mounts: readonly PlannedMount[]
  /** Files of the tenant's that it gets, in the order of the request. */
  readonly storedFiles: readonly NonNullable<FileFacts['stored']>[]
  /** Of its own namespaces. */
  readonly sysctls: readonly Sysctl[]
  /** Whether it gets an address of its tenant's network, when its quota is reserved. */
  readonly networked: boolean
  /** What it may reach beside its tenant's pods; null: nothing. */
  readonly egress: Egress | null
  readonly names: Names
  /** Of the host, that lead to it. */
  readonly ports: readonly PublishedPort[]
  /** null: it is not asked. */
  readonly health: PlannedHealth | null
  readonly limits: PlannedLimits
  /** What its scratch disk may grow to, bytes. */
  readonly scratchBytesMax: number
  /** Size of the pod's log ring. */
  readonly logBytes: number
  readonly decision: Decision
}
