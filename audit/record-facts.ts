/** Parts that several types of records have. Types, not interfaces, so that each is a Canonical to the compiler. */

/** `sha256:` and 64 lower-case hex digits. */
export type Digest = string
export type Level = 'host' | 'container' | 'vm'
export type KvmClass = 'hardware' | 'software'

/** A start of a tenant's pod. */
export type LaunchId = { readonly launch_id: string; readonly tenant: string }

/** Who asked. */
export type Actor = {
  /** Subject: a token's `sub`, or `uid:<n>` of a local peer, or `agent`. */
  readonly sub: string
  readonly kind: 'operator' | 'tenant' | 'agent'
  readonly auth: {
    readonly method: 'jwt' | 'unix-peer' | 'internal'
    /** Issuer and id of the token. */
    readonly iss: string | null
    readonly jti: string | null
    readonly uid: number | null
    readonly src_ip: string | null
  }
}

/** The image that was meant, and what was found about its signatures. */
export type ImageFacts = {
  /** As it was asked for. */
  readonly ref: string
  /** The manifest list, when the reference named one. */
  readonly index: Digest | null
  readonly manifest: Digest | null
  readonly platform: string | null
  readonly verify: {
    readonly result: 'verified' | 'unsigned' | 'failed' | 'not-reached'
    readonly signers: readonly {
      /** SHA-256 of the key's SPKI. */
      readonly key: Digest | null
      readonly kind: string
      readonly form: string
      readonly artifact: Digest
      readonly verified: boolean
      readonly reason: string
    }[]
  }
}

/** Why it was decided so. */
export type PolicyFacts = {
  /** SHA-256 of the policy text that was in force. */
  readonly bundle: Digest
  readonly decision: 'allow' | 'deny'
  /** Ids of the policies and invariants that decided. */
  readonly determining: readonly string[]
  readonly reasons: readonly string[]
}

export type RefusalFacts = {
  readonly code: string
  readonly message: string
  /** Ids of the policies that caused it. */
  readonly policies: readonly string[]
}

/** What was found on the host before a launch, and by whose leave it was launched all the same. */
export type HostFacts = {
  /** Digest of a host.examined record; that record comes earlier in the log. */
  readonly findings: Digest
  /** Severe findings that this launch needed an exception for, with the index of its record. */
  readonly exceptions: readonly { readonly finding: string; readonly record: number }[]
}

/** Repetitions of one thing in one record; `count` 1 is the thing itself. */
export type Folded = { readonly count: number; readonly first: string; readonly last: string }

/** Of what a template is made, and what it became. */
export type TemplateFacts = {
  readonly vcpus: number
  readonly memory_mib: number
  readonly kernel: Digest
  readonly cmdline: Digest
  readonly vmm: Digest
  readonly init_root: string
  readonly kvm: KvmClass
  readonly memory: Digest
  readonly memory_size: number
  readonly state: Digest
  readonly state_size: number
}

/** As in the spec (docs/formats.md section 2). */
export type NetworkFacts = {
  readonly addresses: readonly string[]
  readonly egress: {
    readonly internet: boolean
    readonly rules: readonly {
      readonly cidr: string
      readonly ports: { readonly from: number; readonly to: number } | null
      readonly protocol: string | null
    }[]
  } | null
  readonly gateways: readonly string[]
  readonly mac: string
  readonly mtu: number
  readonly names: {
    readonly hosts: readonly { readonly address: string; readonly name: string }[]
    readonly nameservers: readonly string[]
    readonly options: readonly string[]
    readonly search: readonly string[]
  }
  readonly ports: readonly {
    readonly address: string
    readonly host: number
    readonly pod: number
    readonly protocol: string
  }[]
}

/** Of a launch that a pod's rule asked for: docs/decisions/0027-a-restart-is-a-launch.md. */
export type RestartFacts = {
  /** The pod's id, which is its first launch's. */
  readonly pod: string
  /** 1: the first launch after that one. */
  readonly attempt: number
  readonly rule: string
  /** The launch that ended before. */
  readonly after: string
}

/** A config or secret. Its version is a random id: of a secret nothing else may be on record, its digest neither. */
export type StoredFileFacts = {
  readonly kind: 'config' | 'secret'
  readonly name: string
  readonly version: string
}

/** A path of the host that a pod gets, by root's name for it. */
export type HostPathFacts = {
  readonly host_path: string
  /** What of it; null: all. */
  readonly sub_path: string | null
  readonly read_only: boolean
}
