/**
 * The write-ahead log on disk: the only thing an append waits for. Segments are allocated in full
 * before use, so that an append is one pwrite and one fdatasync and needs no space.
 */
import { type FileHandle, open, readdir, readFile, rm, stat } from 'node:fs/promises'
import path from 'node:path'
import { AuditUnavailable } from '../errors.ts'
import { AuditCorrupt } from '../tiles.ts'
import {
  BLOCK_BYTES,
  batchBytes,
  CHAIN_START,
  encodeBatch,
  encodeSegment,
  type SegmentContent,
  SegmentCorrupt,
  type SegmentStart,
  scanSegment,
} from '../wal-format.ts'
import { makeDirectory, preallocate, removeDurable, renameOpen } from './durable.ts'

export const SEGMENT_BYTES = 16_777_216
const SPARE = 'spare'
const segmentName = (index: number): string => `${String(index).padStart(16, '0')}.wal`
const segmentPattern = /^[0-9]{16}\.wal$/u

/** What was in the log when it was opened. */
export interface Recovered {
  /** Index of the first record that is still there. */
  readonly from: number
  readonly entries: readonly Buffer[]
  /** Bytes of a torn write behind them, to be cut off. */
  readonly tornBytes: number
}

interface Segment {
  readonly file: string
  readonly index: number
}

export class Wal {
  readonly #directory: string
  readonly #segmentBytes: number
  #segments: Segment[]
  #handle: FileHandle
  #end: number
  #next: SegmentStart
  #failed: AuditUnavailable | null = null
  #spare: Promise<unknown> | null = null

  private constructor(
    place: { readonly directory: string; readonly segmentBytes: number },
    segments: Segment[],
    handle: FileHandle,
    at: { readonly end: number; readonly next: SegmentStart },
  ) {
    this.#directory = place.directory
    this.#segmentBytes = place.segmentBytes
    this.#segments = segments
    this.#handle = handle
    this.#end = at.end
    this.#next = at.next
  }

  /**
   * Opens the log in `directory`; makes an empty one where there is none and `published`, the
   * number of records that are known to have been in it, is 0.
   * @throws AuditCorrupt when it is not as this program left it
   */
  static async open(
    directory: string,
    published: number,
    segmentBytes: number = SEGMENT_BYTES,
  ): Promise<{ readonly wal: Wal; readonly recovered: Recovered }> {
    await makeDirectory(directory)
    const names = (await readdir(directory)).filter((name) => segmentPattern.test(name)).toSorted()
    const contents: SegmentContent[] = []
    for (const name of names) {
      // oxlint-disable-next-line no-await-in-loop
      contents.push(await readSegment(path.join(directory, name)))
    }
    checkSequence(directory, names, contents)
    const place = { directory, segmentBytes }
    const last = contents.at(-1)
    if (last === undefined) {
      if (published > 0) throw new AuditCorrupt(directory, 'the write-ahead log is missing')
      const start = { index: 0, chain: CHAIN_START }
      const { handle, segment } = await createSegment(place, start)
      const wal = new Wal(place, [segment], handle, { end: BLOCK_BYTES, next: start })
      return { wal, recovered: { from: 0, entries: [], tornBytes: 0 } }
    }
    const segments = names.map((name, position) => ({
      file: path.join(directory, name),
      index: contents[position]?.start.index ?? 0,
    }))
    const handle = await open(segments.at(-1)?.file ?? '', 'r+')
    const recovered = {
      from: contents[0]?.start.index ?? 0,
      entries: contents.flatMap((content) => content.entries),
      tornBytes: last.tornBytes,
    }
    return { wal: new Wal(place, segments, handle, last), recovered }
  }

  /** Makes the bytes of a torn write zero, so that no later scan takes them for anything. */
  async cutTail(tornBytes: number): Promise<void> {
    if (tornBytes === 0) return
    await writeAt(this.#handle, Buffer.alloc(tornBytes), this.#end)
    await this.#handle.datasync()
  }

  /** Index of the next record. */
  get nextIndex(): number {
    return this.#next.index
  }

  /** The file that is written to, for errors. */
  get file(): string {
    return this.#segments.at(-1)?.file ?? this.#directory
  }

  get failed(): AuditUnavailable | null {
    return this.#failed
  }

  /**
   * Appends entries as one batch; when it returns they are durable. Calls must not overlap.
   * @throws AuditUnavailable for ever after the first failure
   */
  async append(entries: readonly Buffer[]): Promise<void> {
    if (this.#failed !== null) throw this.#failed
    try {
      if (this.#end + batchBytes(entries) > this.#segmentBytes) await this.#roll()
      const { bytes, chain } = encodeBatch(this.#next, entries)
      await writeAt(this.#handle, bytes, this.#end)
      await this.#handle.datasync()
      await this.#checkFile()
      this.#end += bytes.length
      this.#next = { index: this.#next.index + entries.length, chain }
    } catch (error) {
      throw this.poison(error)
    }
    this.#prepareSpare()
  }

  /** From now on nothing is written: what a later write would follow is unknown. */
  poison(cause: unknown): AuditUnavailable {
    this.#failed ??=
      cause instanceof AuditUnavailable ? cause : new AuditUnavailable(this.file, cause)
    return this.#failed
  }

  /** A log that was removed or moved would go on being written to where nobody looks. */
  async #checkFile(): Promise<void> {
    const [mine, named] = await Promise.all([this.#handle.stat(), stat(this.file)])
    if (mine.nlink === 0 || mine.ino !== named.ino || mine.dev !== named.dev) {
      throw Object.assign(new Error('the file was removed or replaced'), { code: 'ESTALE' })
    }
  }

  async #roll(): Promise<void> {
    await this.#spare
    const place = { directory: this.#directory, segmentBytes: this.#segmentBytes }
    const { handle, segment } = await createSegment(place, this.#next)
    await this.#handle.close()
    this.#handle = handle
    this.#segments.push(segment)
    this.#end = BLOCK_BYTES
    this.#spare = null
  }

  /** Allocates the next segment in the background once this one is half full. */
  #prepareSpare(): void {
    if (this.#spare !== null || this.#end * 2 < this.#segmentBytes) return
    const file = path.join(this.#directory, SPARE)
    this.#spare = rm(file, { force: true })
      .then(() => preallocate(file, this.#segmentBytes))
      .then((handle) => handle.close())
      .catch((error: unknown) => {
        this.poison(error)
      })
  }

  /** Removes segments whose records are all below `index`, because tiles hold them. */
  async retire(index: number): Promise<void> {
    for (;;) {
      const [first, second] = this.#segments
      if (first === undefined || second === undefined || second.index > index) return
      // oxlint-disable-next-line no-await-in-loop
      await removeDurable(first.file)
      this.#segments.shift()
    }
  }

  async close(): Promise<void> {
    await this.#spare
    await this.#handle.close()
  }
}

async function writeAt(handle: FileHandle, bytes: Buffer, offset: number): Promise<void> {
  const { bytesWritten } = await handle.write(bytes, 0, bytes.length, offset)
  if (bytesWritten !== bytes.length) {
    throw Object.assign(new Error('a write was cut short'), { code: 'ENOSPC' })
  }
}

async function readSegment(file: string): Promise<SegmentContent> {
  try {
    return scanSegment(await readFile(file))
  } catch (error) {
    if (error instanceof SegmentCorrupt) throw new AuditCorrupt(file, error.message)
    throw error
  }
}

function checkSequence(
  directory: string,
  names: readonly string[],
  contents: readonly SegmentContent[],
): void {
  for (const [position, content] of contents.entries()) {
    const name = names[position] ?? ''
    const before = contents[position - 1]
    const file = path.join(directory, name)
    if (name !== segmentName(content.start.index)) {
      throw new AuditCorrupt(file, 'the segment does not begin at the index of its name')
    }
    if (before === undefined) continue
    const follows =
      before.next.index === content.start.index && before.next.chain.equals(content.start.chain)
    if (!follows || before.tornBytes > 0) {
      throw new AuditCorrupt(file, 'the segment does not follow the one before it')
    }
  }
}

/** A fresh segment under its name, durable; from the spare file when there is one. */
async function createSegment(
  place: { readonly directory: string; readonly segmentBytes: number },
  start: SegmentStart,
): Promise<{ readonly handle: FileHandle; readonly segment: Segment }> {
  const spare = path.join(place.directory, SPARE)
  const file = path.join(place.directory, segmentName(start.index))
  const usable = await stat(spare).then(
    (found) => found.size === place.segmentBytes,
    () => false,
  )
  if (!usable) await rm(spare, { force: true })
  if (!usable) await (await preallocate(spare, place.segmentBytes)).close()
  const handle = await open(spare, 'r+')
  await writeAt(handle, encodeSegment(start), 0)
  await renameOpen(handle, spare, file)
  return { handle, segment: { file, index: start.index } }
}
