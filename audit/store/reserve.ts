/**
 * Space set aside for records of what ends: exits and stops must be recorded even when the log is
 * full or failed. One preallocated segment in the log's own format; what is in it is appended to
 * the log when that is opened next.
 */
import { type FileHandle, open, readFile, rm, stat } from 'node:fs/promises'
import { AuditUnavailable } from '../errors.ts'
import { AuditCorrupt } from '../tiles.ts'
import {
  BLOCK_BYTES,
  CHAIN_START,
  encodeBatch,
  encodeSegment,
  SegmentCorrupt,
  type SegmentStart,
  scanSegment,
} from '../wal-format.ts'
import { preallocate, renameOpen } from './durable.ts'

export const RESERVE_BYTES = 4_194_304
const START: SegmentStart = { index: 0, chain: CHAIN_START }

export class Reserve {
  readonly #file: string
  readonly #size: number
  readonly #handle: FileHandle
  #end: number
  #next: SegmentStart
  /** Appends are one after the other. */
  #last: Promise<void> = Promise.resolve()

  private constructor(
    place: { readonly file: string; readonly size: number },
    handle: FileHandle,
    at: { readonly end: number; readonly next: SegmentStart },
  ) {
    this.#file = place.file
    this.#size = place.size
    this.#handle = handle
    this.#end = at.end
    this.#next = at.next
  }

  /**
   * Opens the reserve, allocating it when there is none.
   * @throws AuditCorrupt
   */
  static async open(
    file: string,
    size: number = RESERVE_BYTES,
  ): Promise<{ readonly reserve: Reserve; readonly entries: readonly Buffer[] }> {
    const found = await stat(file).catch(() => null)
    if (found === null) {
      const handle = await create(file, size)
      const at = { end: BLOCK_BYTES, next: START }
      return { reserve: new Reserve({ file, size }, handle, at), entries: [] }
    }
    try {
      const content = scanSegment(await readFile(file))
      const handle = await open(file, 'r+')
      const reserve = new Reserve({ file, size: found.size }, handle, content)
      return { reserve, entries: content.entries }
    } catch (error) {
      if (error instanceof SegmentCorrupt) throw new AuditCorrupt(file, error.message)
      throw error
    }
  }

  /**
   * Appends one record; when it returns the record is durable.
   * @throws AuditUnavailable when the reserve is full or fails
   */
  append(entry: Buffer): Promise<void> {
    const appended = this.#last.then(() => this.#append(entry))
    this.#last = appended.catch(() => undefined)
    return appended
  }

  async #append(entry: Buffer): Promise<void> {
    const { bytes, chain } = encodeBatch(this.#next, [entry])
    try {
      if (this.#end + bytes.length > this.#size) {
        throw Object.assign(new Error('the reserve is full'), { code: 'ENOSPC' })
      }
      await this.#handle.write(bytes, 0, bytes.length, this.#end)
      await this.#handle.datasync()
    } catch (error) {
      throw new AuditUnavailable(this.#file, error)
    }
    this.#end += bytes.length
    this.#next = { index: this.#next.index + 1, chain }
  }

  /** Empties it, once its records are durable in the log. */
  async clear(): Promise<void> {
    if (this.#end === BLOCK_BYTES) return
    await this.#handle.write(Buffer.alloc(this.#end - BLOCK_BYTES), 0, undefined, BLOCK_BYTES)
    await this.#handle.datasync()
    this.#end = BLOCK_BYTES
    this.#next = START
  }

  async close(): Promise<void> {
    await this.#last
    await this.#handle.close()
  }
}

/** Allocates the reserve under another name first, so that after a crash it is whole or not there. */
async function create(file: string, size: number): Promise<FileHandle> {
  const temporary = `${file}.new`
  await rm(temporary, { force: true })
  const handle = await preallocate(temporary, size, encodeSegment(START))
  await renameOpen(handle, temporary, file)
  return handle
}
