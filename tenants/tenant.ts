/** A tenant as the store holds it, and what can be set about one. */
import {
  BadNoun,
  type Egress,
  type ImageRule,
  type PortRange,
  type Quotas,
  type TenantId,
  type Trust,
} from '../policy/index.ts'

export type TenantState = 'active' | 'suspended'

export interface Tenant {
  readonly id: TenantId
  /** A name for people, 1 to 200 characters. */
  readonly display: string
  readonly trust: Trust
  readonly state: TenantState
  readonly createdMs: number
  readonly imageRule: ImageRule | null
  readonly quotas: Quotas
  /** How often it may launch: so many in a row, given back over a minute. */
  readonly launchesPerMinute: number
  /** Volumes and snapshots of them that it may have. */
  readonly volumes: number
  /** Their sizes together, MiB. */
  readonly volumeMib: number
  /** The most that its pods may reach beside each other; null: nothing. */
  readonly egress: Egress | null
  /** Ports of the host that its pods may have. */
  readonly ports: readonly PortRange[]
}

/** The most a tenant may hold at once, and how often it may launch. */
export interface QuotaLimits {
  readonly vcpus: number
  readonly memoryMib: number
  readonly pods: number
  /** At least 1: a tenant that is to launch nothing is suspended. */
  readonly launchesPerMinute: number
  /** Volumes and snapshots of them. */
  readonly volumes: number
  /** Their sizes together, MiB. */
  readonly volumeMib: number
}

/** What a tenant gets that was created without quotas. */
export const DEFAULT_QUOTA_LIMITS: QuotaLimits = {
  vcpus: 4,
  memoryMib: 4096,
  pods: 16,
  launchesPerMinute: 30,
  volumes: 8,
  volumeMib: 10_240,
}
const QUOTA_MAX = 1_000_000

export interface NewTenant {
  readonly id: TenantId
  readonly display: string
  readonly trust: Trust
  /** Null: it runs nothing yet. */
  readonly imageRule: ImageRule | null
  readonly quotas: QuotaLimits
  readonly egress: Egress | null
  /** Ports of the host that its pods may have. */
  readonly ports: readonly PortRange[]
}

/** @throws BadNoun */
export function parseDisplay(input: unknown): string {
  if (typeof input === 'string' && /^[^\p{C}\p{Zl}\p{Zp}]{1,200}$/u.test(input)) return input
  throw new BadNoun('display name', 'must be 1 to 200 characters without control characters')
}

const isQuota = (value: unknown): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= QUOTA_MAX

/** @throws BadNoun */
export function parseQuotaLimits(input: QuotaLimits): QuotaLimits {
  const { vcpus, memoryMib, pods, launchesPerMinute, volumes, volumeMib } = input
  const limits = { vcpus, memoryMib, pods, launchesPerMinute, volumes, volumeMib }
  if (Object.values(limits).every(isQuota) && launchesPerMinute > 0) return limits
  const sentence = `must be integers, 0 to ${QUOTA_MAX}, and launches a minute at least 1`
  throw new BadNoun('quotas', sentence)
}
