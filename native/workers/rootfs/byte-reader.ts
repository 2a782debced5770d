/**
 * Reads exact amounts from a stream of chunks. Bounded: it holds one chunk of the source and what
 * one `read` asked for, never the stream.
 */
/* oxlint-disable no-await-in-loop -- a stream is read in order */
import { invalid } from './failure.ts'

/** No caller reads more than this at once; bodies go through `pass`. */
const READ_BYTES_MAX = 1 << 20

export class ByteReader {
  readonly #source: AsyncIterator<Buffer>
  #chunk: Buffer = Buffer.alloc(0)
  #at = 0
  #ended = false

  constructor(source: AsyncIterable<Buffer>) {
    this.#source = source[Symbol.asyncIterator]()
  }

  /** `size` bytes, or null when the stream ends exactly here. Valid until the next call. */
  async readOrEnd(size: number): Promise<Buffer | null> {
    if (size > READ_BYTES_MAX) throw new RangeError(`read of ${size} bytes at once`)
    if (this.#chunk.length - this.#at >= size) return this.#take(size)
    const parts: Buffer[] = []
    let missing = size
    while (missing > 0) {
      if (this.#at === this.#chunk.length && !(await this.#fill())) break
      const part = this.#take(Math.min(missing, this.#chunk.length - this.#at))
      parts.push(part)
      missing -= part.length
    }
    if (missing === size && size > 0) return null
    if (missing > 0) throw invalid('the archive ends in the middle of an entry')
    return Buffer.concat(parts)
  }

  /** `size` bytes; the archive may not end here. */
  async read(size: number): Promise<Buffer> {
    const bytes = await this.readOrEnd(size)
    if (bytes === null) throw invalid('the archive ends in the middle of an entry')
    return bytes
  }

  /** Hands `size` bytes on, chunk by chunk. A chunk is valid only during the call. */
  async pass(size: number, take: (chunk: Buffer) => void): Promise<void> {
    let missing = size
    while (missing > 0) {
      if (this.#at === this.#chunk.length && !(await this.#fill())) {
        throw invalid('the archive ends in the middle of an entry')
      }
      const part = this.#take(Math.min(missing, this.#chunk.length - this.#at))
      missing -= part.length
      take(part)
    }
  }

  /** Hands on what is left, to the end of the stream. */
  async drain(take: (chunk: Buffer) => void): Promise<void> {
    do take(this.#take(this.#chunk.length - this.#at))
    while (await this.#fill())
  }

  #take(size: number): Buffer {
    const part = this.#chunk.subarray(this.#at, this.#at + size)
    this.#at += size
    return part
  }

  /** Next non-empty chunk of the source; false at its end. */
  async #fill(): Promise<boolean> {
    while (!this.#ended) {
      const next = await this.#source.next()
      if (next.done === true) this.#ended = true
      else if (next.value.length > 0) {
        this.#chunk = next.value
        this.#at = 0
        return true
      }
    }
    return false
  }
}
