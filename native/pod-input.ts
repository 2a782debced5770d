/** Standard input on its way to a guest: what was given waits here until the guest grants credit for it. */
import { ByteQueue } from './byte-queue.ts'
import { FRAME_PAYLOAD_MAX, KINDS, PodStreamError } from './pod-frames.ts'

/** Above it the writer is told to wait. */
const WAITING_BYTES_MAX = 1 << 20
/** docs/formats.md section 7: no window ever holds more. */
const CREDIT_BYTES_MAX = 65_536

export class PodInput {
  readonly #send: (kind: number, payload: Buffer) => void
  readonly #drained: () => void
  readonly #waiting = new ByteQueue()
  #credit = 0
  #ended = false
  #eofSent = false

  /** @param drained nothing waits any more */
  constructor(send: (kind: number, payload: Buffer) => void, drained: () => void) {
    this.#send = send
    this.#drained = drained
  }

  /** Whether its end was given: what comes after it goes nowhere, since the VMM would end the stream for it. */
  get hasEnded(): boolean {
    return this.#ended
  }

  /** False means: wait for 'drained' before giving more, or it is held here. */
  write(bytes: Buffer): boolean {
    if (this.#ended) return true
    this.#waiting.append(bytes)
    this.#flush()
    return this.#waiting.length < WAITING_BYTES_MAX
  }

  end(): void {
    this.#ended = true
    this.#flush()
  }

  /** @throws PodStreamError */
  grant(bytes: number): void {
    if (this.#credit + bytes > CREDIT_BYTES_MAX) {
      throw new PodStreamError('the guest granted more standard input than a window holds')
    }
    this.#credit += bytes
    this.#flush()
  }

  /** Sends what the credit allows: the VMM takes more for an attack and ends the stream. */
  #flush(): void {
    while (this.#credit > 0 && this.#waiting.length > 0) {
      const part = this.#waiting.first(Math.min(this.#credit, FRAME_PAYLOAD_MAX))
      this.#send(KINDS.stdin, part)
      this.#credit -= part.length
      this.#waiting.drop(part.length)
    }
    if (this.#waiting.length > 0) return
    this.#drained()
    if (!this.#ended || this.#eofSent) return
    this.#eofSent = true
    this.#send(KINDS.stdinEof, Buffer.alloc(0))
  }
}
