/**
 * Bounds what launches can write into the log. Refusals are folded there, but a launch that comes
 * past the decision has records of its own, whether it fails (a layer that is missing, a worker that
 * dies) or starts and ends at once. So each tenant has a budget of launches, which is a quota of
 * its, and a smaller one of failures, which also cost the host work for nothing. Beyond either its
 * launches are refused before anything is recorded of them but that, folded like every refusal.
 *
 * They are the tenant's, like every quota: it does not matter who launches for it.
 */
import { Refusal, type TenantId } from '../../policy/index.ts'
import { Budget, type Rate } from './budget.ts'

const MINUTE_MS = 60_000
/** Failures of one tenant: those in a row, and one more for each minute. */
export const FAILURES: Rate = { most: 20, refillMs: MINUTE_MS }

export class LaunchBudgets {
  readonly #launches: Budget
  readonly #failures: Budget

  /** @param now milliseconds that never go back; of no epoch */
  constructor(now: () => number = () => performance.now()) {
    this.#launches = new Budget(now)
    this.#failures = new Budget(now)
  }

  /**
   * Takes one launch of the tenant's.
   * @param perMinute in a row, and given back over a minute; at least 1
   * @throws Refusal LAUNCHES_FAILING, LAUNCH_RATE_EXCEEDED
   */
  admit(tenant: TenantId, perMinute: number): void {
    const failing = secondsOf(this.#failures.waitMs(tenant, FAILURES))
    if (failing > 0) {
      const sentence = `Too many launches of this tenant failed. Look at why the last ones did, and try again in ${failing} s.`
      throw new Refusal('LAUNCHES_FAILING', sentence, { retry_after_s: failing })
    }
    const rate = { most: perMinute, refillMs: MINUTE_MS / perMinute }
    const seconds = secondsOf(this.#launches.waitMs(tenant, rate))
    if (seconds > 0) {
      const sentence = `The tenant's quota of ${perMinute} launches a minute is used up. Try again in ${seconds} s, or ask the provider for more.`
      const facts = { what: 'launches_per_minute', limit: perMinute, retry_after_s: seconds }
      throw new Refusal('LAUNCH_RATE_EXCEEDED', sentence, facts)
    }
    this.#launches.spend(tenant, rate)
  }

  /** A launch failed that has records of its own. */
  failed(tenant: TenantId): void {
    this.#failures.spend(tenant, FAILURES)
  }
}

const secondsOf = (ms: number): number => Math.ceil(ms / 1000)
