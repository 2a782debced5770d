/**
 * What each tenant may do only so often: a number in a row, given back one by one over time (a token
 * bucket). In memory: the end of the agent, which no tenant can cause, gives everything back.
 */
import type { TenantId } from '../../policy/index.ts'

/** Beyond it the tenant that spent longest ago begins anew. */
const TENANTS_MAX = 4096

export interface Rate {
  /** In a row, of a budget that is whole. */
  readonly most: number
  /** One is given back after each of these. */
  readonly refillMs: number
}

export class Budget {
  readonly #now: () => number
  /** When all that the tenant spent is given back, in the time of `now`. */
  readonly #until = new Map<TenantId, number>()

  /** @param now milliseconds that never go back; of no epoch */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Milliseconds until the tenant may spend one more; 0: now. */
  waitMs(tenant: TenantId, { most, refillMs }: Rate): number {
    const owed = (this.#until.get(tenant) ?? 0) - this.#now()
    // Whole ones: a sum of thirds of a second is a little more than it should be.
    return Math.max(0, Math.floor(owed - (most - 1) * refillMs))
  }

  /** Also beyond what there is: the tenant then waits for that as well. */
  spend(tenant: TenantId, { refillMs }: Rate): void {
    const now = this.#now()
    const until = Math.max(this.#until.get(tenant) ?? now, now) + refillMs
    // Deleted first, so that the order is that of the last one spent.
    this.#until.delete(tenant)
    this.#until.set(tenant, until)
    const oldest = this.#until.keys().next().value
    if (this.#until.size > TENANTS_MAX && oldest !== undefined) this.#until.delete(oldest)
  }
}
