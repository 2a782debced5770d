/** The tables as Kysely knows them. migrations.ts makes them; times are ms since 1970. */
import type { Kysely } from 'kysely'

export interface TenantRow {
  readonly id: string
  readonly display: string
  readonly trust: string
  readonly state: string
  readonly created_ms: number
  readonly image_rule: string | null
  readonly image_rule_digest: string | null
  readonly quota_vcpus: number
  readonly quota_memory_mib: number
  readonly quota_pods: number
  readonly used_vcpus: number
  readonly used_memory_mib: number
  readonly used_pods: number
  /** Of its starts, those that have ended and wait for nothing; counted by triggers. */
  readonly ended_pods: number
  readonly quota_launches_per_minute: number
  readonly quota_volumes: number
  readonly quota_volume_mib: number
  /** null until its first pod on a network. */
  readonly network: number | null
  /** Canonical JSON of what `parseEgress` reads; null: nothing. */
  readonly egress: string | null
  /** Canonical JSON of what `parsePortRanges` reads; null: none. */
  readonly ports: string | null
}

export interface PodRow {
  readonly id: string
  readonly tenant: string
  readonly state: string
  readonly identity: string
  readonly image_reference: string
  readonly image_digest: string | null
  readonly level: string | null
  readonly spec_digest: string | null
  readonly record_index: number | null
  /** 1 while vcpus and memory_mib are counted in the tenant's use. */
  readonly reserved: number
  readonly vcpus: number
  readonly memory_mib: number
  readonly created_ms: number
  readonly started_ms: number | null
  readonly ended_ms: number | null
  readonly exit: string | null
  readonly problem: string | null
  readonly facts: string | null
  /** 1 once it is on record that the pod was told to stop. */
  readonly stop_recorded: number
  /** Its number on the tenant's network, while it holds a reservation; null without a network. */
  readonly address: number | null
  /** Id of the pod's first start. */
  readonly origin: string
  readonly attempt: number
  readonly restart_rule: string | null
  readonly restart_streak: number
  /** When it is started again; only of a pod that has ended. */
  readonly restart_due_ms: number | null
  /** 1 once somebody told the pod to stop. */
  readonly stop_asked: number
  readonly name: string | null
  /** Objects of texts, as JSON. */
  readonly labels: string
  readonly annotations: string
}

/** What a pod with a restart rule was asked for with, until it has ended for good. */
export interface RestartRequestRow {
  readonly origin: string
  readonly tenant: string
  readonly request: string
}

export interface IdempotencyRow {
  readonly tenant: string
  readonly identity: string
  readonly key: string
  readonly body_digest: string
  readonly pod: string
  readonly status: number | null
  readonly response: string | null
  readonly expires_ms: number
}

export interface TokenRow {
  readonly jti: string
  readonly tenant: string
  readonly name: string
  readonly issued_ms: number
  readonly expires_ms: number
  readonly revoked_ms: number | null
}

export interface HostExceptionRow {
  readonly finding: string
  readonly reason: string
  readonly identity: string
  readonly created_ms: number
  readonly until_ms: number
  readonly record_index: number
}

export interface PublishedPortRow {
  readonly protocol: string
  readonly address: string
  readonly port: number
  readonly tenant: string
  readonly pod: string
}

/** A record of the audit log, and whose it is. */
export interface EventRow {
  /** Its index in the log. */
  readonly record: number
  /** The tenant; empty: the host. */
  readonly subject: string
  readonly time_ms: number
  readonly launch: string | null
  /** Of the launch's pod, as it was then. */
  readonly pod: string | null
  readonly attempt: number | null
  readonly name: string | null
  readonly labels: string
}

export interface EventFloorRow {
  readonly subject: string
  readonly floor: number
}

export interface EventPositionRow {
  readonly id: number
  readonly next: number
}

/** One row while the host is drained. */
export interface HostDrainRow {
  readonly id: number
  readonly since_ms: number
  readonly until_ms: number
  readonly identity: string
  readonly reported_ms: number | null
}

export interface StoredFileRow {
  readonly tenant: string
  readonly kind: string
  readonly name: string
  readonly version: string
  readonly size: number
  readonly identity: string
  readonly created_ms: number
  readonly key_id: string
  /** Base64, and so is `sealed`. */
  readonly nonce: string
  readonly sealed: string
}

export interface Tables {
  readonly host_drain: HostDrainRow
  readonly events: EventRow
  readonly event_floors: EventFloorRow
  readonly event_position: EventPositionRow
  readonly stored_files: StoredFileRow
  readonly published_ports: PublishedPortRow
  readonly tenants: TenantRow
  readonly pods: PodRow
  readonly idempotency: IdempotencyRow
  readonly tokens: TokenRow
  readonly host_exceptions: HostExceptionRow
  readonly restart_requests: RestartRequestRow
}

export type Store = Kysely<Tables>
