/**
 * The launches that are under way, so that an agent that ends takes no more of them and lets those
 * come to their answers: a caller whose connection just ends does not know what it has started.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { ApiError } from '../errors.ts'

export class Launching {
  #count = 0
  #closed = false
  #held = false
  readonly #over = new AbortController()

  /**
   * Counts one more until the function that it gives is called.
   * @throws ApiError SHUTTING_DOWN, HOST_DRAINING
   */
  begin(): () => void {
    this.goOn()
    if (this.#closed) {
      const sentence =
        'The agent is ending and launches nothing more. Send the request again when it is back; its Idempotency-Key is not used up.'
      throw new ApiError('SHUTTING_DOWN', sentence)
    }
    this.#count += 1
    return () => {
      this.#count -= 1
      if (this.#closed && this.#count === 0) this.#over.abort()
    }
  }

  /** Of one under way too, before it is on record as one that starts. @throws ApiError HOST_DRAINING */
  goOn(): void {
    if (!this.#held) return
    const sentence =
      'This host is drained and launches nothing. Launch on another one, or when its operators have ended that.'
    throw new ApiError('HOST_DRAINING', sentence)
  }

  /** Takes no more while the host is drained, nor starts those that are being prepared. */
  hold(held: boolean): void {
    this.#held = held
  }

  get held(): boolean {
    return this.#held
  }

  /** Takes no more, and waits for those under way, but not longer than `patienceMs`. */
  async close(patienceMs: number): Promise<void> {
    this.#closed = true
    if (this.#count === 0) return
    await sleep(patienceMs, undefined, { signal: this.#over.signal }).catch(() => undefined)
  }
}
