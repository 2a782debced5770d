/**
 * Bounds what launches that fail can write into the log. Refusals are folded there, but a launch that
 * fails after the decision (a layer that is missing, a worker that dies, a host without room) has
 * records of its own, and a tenant could go on forever with one image that never works. So each
 * tenant has a number of failures, given back over time; when they are spent its launches are refused
 * before anything is recorded of them but that, folded like every refusal.
 */
import { Refusal, type TenantId } from '../../policy/index.ts'

/** Failures of one tenant in a row. */
export const FAILURES_MAX = 20
/** One more after each of these. */
export const FAILURE_MS = 60_000
/** Beyond it the tenant that failed longest ago begins anew. */
const TENANTS_MAX = 4096

export class Failures {
  readonly #now: () => number
  /** When all failures of the tenant are given back, in the time of `now`. */
  readonly #until = new Map<TenantId, number>()

  /** @param now milliseconds that never go back; of no epoch */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** @throws Refusal LAUNCHES_FAILING */
  admit(tenant: TenantId): void {
    const owed = (this.#until.get(tenant) ?? 0) - this.#now()
    const waitMs = owed - (FAILURES_MAX - 1) * FAILURE_MS
    if (waitMs <= 0) return
    const seconds = Math.ceil(waitMs / 1000)
    throw new Refusal(
      'LAUNCHES_FAILING',
      `Too many launches of this tenant failed. Look at why the last ones did, and try again in ${seconds} s.`,
      { retry_after_s: seconds },
    )
  }

  /** A launch failed that has records of its own. */
  count(tenant: TenantId): void {
    const now = this.#now()
    const until = Math.max(this.#until.get(tenant) ?? now, now) + FAILURE_MS
    // Deleted first, so that the order is that of the last failure.
    this.#until.delete(tenant)
    this.#until.set(tenant, until)
    const oldest = this.#until.keys().next().value
    if (this.#until.size > TENANTS_MAX && oldest !== undefined) this.#until.delete(oldest)
  }
}
