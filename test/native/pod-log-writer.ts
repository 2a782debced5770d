/** Writes a pod's log as its VMM does. */
import type { FileHandle } from 'node:fs/promises'
import { SEGMENT_BYTES } from '../../native/pod-log.ts'

export const HEADER = 4096
export const RECORD_HEADER = 16
const TIME_NS = 1_700_000_000_000_000_000n

/** The writer of docs/formats.md section 8, as short as it can be. */
export class LogWriter {
  readonly #file: FileHandle
  readonly #capacity: number
  written = 0

  constructor(file: FileHandle, size: number) {
    this.#file = file
    this.#capacity = size - HEADER
  }

  async #put(bytes: Buffer): Promise<void> {
    await this.#file.write(bytes, 0, bytes.length, HEADER + (this.written % this.#capacity))
    this.written += bytes.length
  }

  async #raise(): Promise<void> {
    const bytes = Buffer.alloc(8)
    bytes.writeBigUInt64LE(BigInt(this.written))
    await this.#file.write(bytes, 0, 8, 24)
  }

  /** @param timeNs since 1970 */
  async write(text: string | Buffer, stream = 1, timeNs: bigint = TIME_NS, app = 0): Promise<void> {
    const payload = Buffer.from(text)
    const room = SEGMENT_BYTES - (this.written % SEGMENT_BYTES)
    if (room < RECORD_HEADER + payload.length) {
      if (room < RECORD_HEADER) this.written += room
      else await this.#put(record(Buffer.alloc(room - RECORD_HEADER), 0, timeNs))
    }
    await this.#put(record(payload, stream, timeNs, app))
    await this.#raise()
  }
}

function record(payload: Buffer, stream: number, timeNs: bigint, app = 0): Buffer {
  const header = Buffer.alloc(RECORD_HEADER)
  header.writeUInt32LE(payload.length, 0)
  header.writeUInt8(stream, 4)
  header.writeUInt8(app, 5)
  header.writeBigUInt64LE(timeNs, 8)
  return Buffer.concat([header, payload])
}
