/**
 * Answers that stay open: waits, logs and events. Each holds a file or a timer for up to hours,
 * a rate limit lets a thousand of them begin every minute, and one connection carries any number
 * (pipelining). So they are counted by tenant, and one tenant's cannot use up the agent for the others.
 */
import type { ServerResponse } from 'node:http'
import { ApiError } from '../errors.ts'
import { goneOf } from './shared.ts'

/** Of one tenant at a time; several for each pod that its quota usually allows. */
export const OPEN_ANSWERS_MAX = 128
/** Of all tenants: fewer than the connections of a listener (connections.ts), so that others come in. */
export const OPEN_ANSWERS_ALL_MAX = 384
/** From so many on they are scarce, and the rest is for tenants that have few. */
const SCARCE = 256
const FEW = 16

/** Those that were counted, of all listeners: their connections stay when others give way. */
const counted = new WeakSet<ServerResponse>()

export const isOpenAnswer = (answer: ServerResponse): boolean => counted.has(answer)

export class OpenAnswers {
  readonly #open = new Map<string, number>()
  #all = 0

  /**
   * Counts one more until the caller has gone or was answered, which aborts the signal that it gives.
   * @param tenant whose they are
   * @throws ApiError TOO_MANY_REQUESTS
   */
  begin(tenant: string, answer: ServerResponse): AbortSignal {
    const open = this.#open.get(tenant) ?? 0
    if (open >= OPEN_ANSWERS_MAX) {
      const sentence = `The tenant has ${OPEN_ANSWERS_MAX} waits, logs and events open already. End some, then ask again.`
      throw new ApiError('TOO_MANY_REQUESTS', sentence)
    }
    if (this.#all >= OPEN_ANSWERS_ALL_MAX || (this.#all >= SCARCE && open >= FEW)) {
      const sentence = 'Too many waits, logs and events of all tenants are open. Try again later.'
      throw new ApiError('TOO_MANY_REQUESTS', sentence)
    }
    const gone = goneOf(answer)
    if (gone.aborted) return gone
    this.#open.set(tenant, open + 1)
    this.#all += 1
    counted.add(answer)
    gone.addEventListener('abort', () => this.#end(tenant), { once: true })
    return gone
  }

  #end(tenant: string): void {
    this.#all -= 1
    const open = (this.#open.get(tenant) ?? 0) - 1
    if (open > 0) this.#open.set(tenant, open)
    else this.#open.delete(tenant)
  }
}
