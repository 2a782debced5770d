/**
 * Everything a decision is made from. Whoever calls `decide` gathered it; nothing is looked up
 * during the decision, so the same facts give the same plan.
 */
import type { Principal } from './cedar/query.ts'
import type { Evidence } from './evidence.ts'
import type { ImageRule } from './image-rule.ts'
import type { ResolvedImage } from './image-verdict.ts'
import type { Capability } from './nouns/capability.ts'
import type { Egress } from './nouns/egress.ts'
import type { FileName, StoredKind, WantedFile } from './nouns/file.ts'
import type { HealthRequest, HealthTimes } from './nouns/health.ts'
import type { HostException, HostFindings } from './nouns/host-finding.ts'
import type { IsolationLevel, KvmClass } from './nouns/isolation.ts'
import type { MemoryMib, Vcpus } from './nouns/machine.ts'
import type { WantedMount } from './nouns/mount.ts'
import type { Names } from './nouns/names.ts'
import type { NetworkName } from './nouns/network.ts'
import type { Hostname, PodId } from './nouns/pod.ts'
import type { PortRange, PublishedPort } from './nouns/ports.ts'
import type { Environment, User, WorkingDirectory } from './nouns/process.ts'
import type { Signal, StopTimeoutMs } from './nouns/signal.ts'
import type { Sysctl } from './nouns/sysctl.ts'
import type { TenantId, Trust } from './nouns/tenant.ts'
import type { ResourceLimit } from './plan.ts'

/** One count of a quota: what is reserved now, and the most that may be. */
export interface QuotaLine {
  readonly used: number
  readonly limit: number
}

/** What a tenant may hold at once. The reservation in tenants/ is what binds; this is a preview. */
export interface Quotas {
  readonly vcpus: QuotaLine
  readonly memoryMib: QuotaLine
  readonly pods: QuotaLine
}

/** What one pod takes from each quota. */
export interface Charge {
  readonly vcpus: number
  readonly memoryMib: number
  readonly pods: number
}

export interface TenantFacts {
  readonly id: TenantId
  readonly trust: Trust
  readonly suspended: boolean
  /** null until a rule was set; such a tenant runs no image. */
  readonly imageRule: ImageRule | null
  readonly quotas: Quotas
  /** The most that its pods may reach beside each other; null: nothing. */
  readonly egress: Egress | null
  /** Ports of the host that its pods may have. */
  readonly ports: readonly PortRange[]
}

/**
 * What the caller asks for, parsed. null means: not asked for, the decision chooses.
 * `entrypoint` and `args` replace the image's as with `docker run`: an entrypoint drops the image's
 * command too.
 */
export interface LaunchRequest {
  readonly pod: PodId
  readonly principal: Principal
  readonly isolation: IsolationLevel | null
  readonly vcpus: Vcpus | null
  readonly memoryMib: MemoryMib | null
  readonly hostname: Hostname | null
  readonly entrypoint: readonly string[] | null
  readonly args: readonly string[] | null
  /** Laid over the image's environment, key by key. */
  readonly env: Environment | null
  readonly cwd: WorkingDirectory | null
  readonly user: User | null
  readonly capabilitiesAdd: readonly Capability[]
  readonly capabilitiesDrop: readonly Capability[]
  readonly readOnlyRoot: boolean
  readonly mounts: readonly WantedMount[]
  readonly files: readonly WantedFile[]
  /** Sorted by name. */
  readonly sysctls: readonly Sysctl[]
  readonly network: NetworkName
  /** null: all that its tenant may reach. */
  readonly egress: { readonly wanted: Egress | null } | null
  /** null: the host's. */
  readonly nameservers: readonly string[] | null
  readonly search: readonly string[] | null
  readonly hosts: Names['hosts']
  /** Over the defaults, each type once. */
  readonly ulimits: readonly ResourceLimit[]
  /** Beside those that the user has in the image. */
  readonly additionalGids: readonly number[]
  /** null: the image's, or TERM. */
  readonly stopSignal: Signal | null
  /** From asking to killing when it is told to stop, ms; null: the default. */
  readonly stopTimeoutMs: StopTimeoutMs | null
  readonly publish: readonly PublishedPort[]
  /** null: the image's. */
  readonly health: HealthRequest | null
}

/** Members of an image-spec config, as the image says them: not yet trusted to be sensible. */
export interface ImageConfig {
  readonly entrypoint: readonly string[]
  readonly cmd: readonly string[]
  readonly env: readonly string[]
  /** '' where the image says nothing. */
  readonly workingDir: string
  readonly user: string
  /** null where the image says nothing. */
  readonly stopSignal: string | null
  /** Places that it says are written. */
  readonly volumes: readonly string[]
  /** null where the image says nothing. */
  readonly healthcheck: ImageHealthcheck | null
}

/** Docker's HEALTHCHECK, as the image has it. */
export interface ImageHealthcheck {
  /** Empty, or NONE, CMD or CMD-SHELL and what belongs to it. */
  readonly test: readonly string[]
  /** For CMD-SHELL; empty: the usual one. */
  readonly shell: readonly string[]
  /** Times in ns; 0 says nothing. */
  readonly times: HealthTimes
}

export interface ImageFacts {
  /** The reference as it was asked for. */
  readonly reference: string
  readonly resolved: ResolvedImage
  readonly config: ImageConfig
  readonly evidence: readonly Evidence[]
}

/** The host's own choice. */
export type Resolver = Pick<Names, 'nameservers' | 'options' | 'search'>

/** An entry of root's list; where it is, only root knows. */
export interface HostPathFacts {
  readonly tenants: readonly string[]
  /** First id on disk of who writes there; null: nobody writes. */
  readonly ids: number | null
  /** Whether programs in it may be started. */
  readonly exec: boolean
}

export interface HostFacts {
  /** null: no usable KVM; `kvmReason` then says why in a sentence. */
  readonly kvm: KvmClass | null
  readonly kvmReason: string | null
  /** Root allows software KVM to count as KVM. */
  readonly allowSoftwareKvm: boolean
  /** What was found wrong with it just now. */
  readonly findings: HostFindings
  /** Those that are in force, one for a finding. */
  readonly exceptions: readonly HostException[]
  /** Levels below vm by tenant, from the root-owned level file, as spawn reports it. */
  readonly levels: Readonly<Record<string, readonly IsolationLevel[]>>
  /** Paths of the host by name, from root's list, as spawn reports it. */
  readonly hostPaths: Readonly<Record<string, HostPathFacts>>
  /** Levels that this version of Casemate has a launcher for. */
  readonly launchers: readonly IsolationLevel[]
  /** What pods with a way out are told of names, unless they ask for others. */
  readonly resolver: Resolver
  /** The provider's image rule for all tenants; null: none beside the tenants' own. */
  readonly imageFloor: ImageRule | null
}

/** A file of the request as it was found, before its content is opened. */
export interface FileFacts {
  /** null: it is in the request. */
  readonly stored: {
    readonly kind: StoredKind
    readonly name: FileName
    /** Of the content that the pod gets; another with each that is stored. */
    readonly version: string
  } | null
  readonly size: number
}

/** One launch, to be decided. */
export interface LaunchQuestion {
  readonly tenant: TenantFacts
  readonly request: LaunchRequest
  readonly image: ImageFacts
  /** Those of the request, in its order. */
  readonly files: readonly FileFacts[]
  readonly host: HostFacts
}
