/**
 * The log of a pod: a ring of fixed size that the VMM writes and anybody with the file reads
 * (docs/formats.md section 8). The writer never waits for a reader, so a reader that is too slow is
 * overtaken: it is told how many bytes it lost, and goes on from the oldest that are whole.
 *
 * The VMM may have been taken over, so the file is hostile input: every length is checked against
 * its segment, and a record that does not fit ends the reading with POD_LOG_DAMAGED.
 */
import { type FileHandle, open } from 'node:fs/promises'

export const SEGMENT_BYTES = 65_536
const HEADER_BYTES = 4096
const RECORD_HEADER_BYTES = 16
/** `APPS_MAX` of native/wire/src/apps.rs. */
const APPS_MAX = 8
const MAGIC = Buffer.from('casemlog', 'latin1')

const STREAMS = ['padding', 'stdout', 'stderr', 'console', 'vmm'] as const
export type PodLogStream = Exclude<(typeof STREAMS)[number], 'padding'>

export interface PodLogRecord {
  readonly kind: 'record'
  /** Where to go on after this record: a value for `since`. */
  readonly next: number
  readonly stream: PodLogStream
  /** The place in the spec of the app whose output it is; 0 for everything else. */
  readonly app: number
  /** Nanoseconds since 1970. */
  readonly time_ns: bigint
  readonly payload: Buffer
}

/** The writer was faster: the bytes from `from` up to `to` are gone. */
export interface PodLogGap {
  readonly kind: 'gap'
  readonly from: number
  readonly to: number
}

export class PodLogError extends Error {
  override readonly name = 'PodLogError'
  readonly code = 'POD_LOG_DAMAGED'
}

/** As many whole segments as fit into a file of `size` bytes after its header. */
const capacityOf = (size: number): number =>
  Math.floor((size - HEADER_BYTES) / SEGMENT_BYTES) * SEGMENT_BYTES

/** Creates the file with its header, `size` bytes long. @throws when it exists (wx) */
export async function createPodLog(path: string, size: number): Promise<FileHandle> {
  const capacity = capacityOf(size)
  if (capacity < 2 * SEGMENT_BYTES) {
    throw new RangeError('a pod log holds 4096 bytes and at least two segments of 65536')
  }
  const header = Buffer.alloc(HEADER_BYTES)
  MAGIC.copy(header, 0)
  header.writeUInt32LE(1, 8)
  header.writeUInt32LE(SEGMENT_BYTES, 12)
  header.writeBigUInt64LE(BigInt(capacity), 16)
  const file = await open(path, 'wx+', 0o600)
  try {
    await file.truncate(size)
    await file.write(header, 0, HEADER_BYTES, 0)
    return file
  } catch (cause) {
    await file.close()
    throw cause
  }
}

interface Head {
  readonly capacity: number
  readonly written: number
}

function readHead(header: Buffer, fileSize: number): Head {
  const capacity = Number(header.readBigUInt64LE(16))
  const written = header.readBigUInt64LE(24)
  const sound =
    header.subarray(0, 8).equals(MAGIC) &&
    header.readUInt32LE(8) === 1 &&
    header.readUInt32LE(12) === SEGMENT_BYTES &&
    capacity === capacityOf(fileSize) &&
    capacity >= 2 * SEGMENT_BYTES &&
    written <= BigInt(Number.MAX_SAFE_INTEGER)
  if (!sound) throw new PodLogError('the header of the pod log is damaged')
  return { capacity, written: Number(written) }
}

const segmentOf = (offset: number): number => offset - (offset % SEGMENT_BYTES)

/** The oldest segment that no write in flight can touch. */
function oldest({ capacity, written }: Head): number {
  const first = written - capacity + SEGMENT_BYTES
  return first <= 0 ? 0 : Math.ceil(first / SEGMENT_BYTES) * SEGMENT_BYTES
}

function readRecord(bytes: Buffer, at: number, base: number): PodLogRecord | number {
  const length = bytes.readUInt32LE(at)
  const stream = STREAMS[bytes.readUInt8(at + 4)]
  const app = bytes.readUInt8(at + 5)
  const end = at + RECORD_HEADER_BYTES + length
  const isSound = app < APPS_MAX && end <= SEGMENT_BYTES && bytes.readUInt16LE(at + 6) === 0
  if (stream === undefined || !isSound) {
    throw new PodLogError(`the pod log is damaged at offset ${base + at}`)
  }
  if (stream === 'padding') return end
  const time = bytes.readBigUInt64LE(at + 8)
  const payload = Buffer.from(bytes.subarray(at + RECORD_HEADER_BYTES, end))
  return { kind: 'record', next: base + end, stream, app, time_ns: time, payload }
}

/** The records of one segment's bytes that start at `since` or later. */
function* recordsOf(bytes: Buffer, base: number, since: number): Generator<PodLogRecord> {
  let at = 0
  while (at + RECORD_HEADER_BYTES <= bytes.length) {
    const start = base + at
    const found = readRecord(bytes, at, base)
    if (typeof found === 'number') {
      at = found
      continue
    }
    at = found.next - base
    if (at > bytes.length) return // the writer has not raised `written` over it yet
    if (start >= since) yield found
  }
}

/** A reader over one log. It moves forward only; `next` is where it is. */
export class PodLogReader {
  readonly #file: FileHandle
  readonly #size: number
  #at: number

  private constructor(file: FileHandle, size: number, since: number) {
    this.#file = file
    this.#size = size
    this.#at = since
  }

  /** Opens the log to read it from the logical offset `since`, or from its oldest whole segment. */
  static async open(path: string, since = 0): Promise<PodLogReader> {
    const file = await open(path, 'r')
    try {
      return new PodLogReader(file, (await file.stat()).size, since)
    } catch (cause) {
      await file.close()
      throw cause
    }
  }

  get next(): number {
    return this.#at
  }

  async #head(): Promise<Head> {
    const header = Buffer.alloc(HEADER_BYTES)
    const { bytesRead } = await this.#file.read(header, 0, HEADER_BYTES, 0)
    if (bytesRead !== HEADER_BYTES) throw new PodLogError('the pod log is cut short')
    return readHead(header, this.#size)
  }

  #skipTo(first: number): PodLogGap {
    const gap: PodLogGap = { kind: 'gap', from: this.#at, to: first }
    this.#at = first
    return gap
  }

  /**
   * What one segment holds beyond `next`; empty when there is nothing new. Reads, then looks at the
   * header again: bytes that a write may have touched meanwhile are dropped and become a gap.
   * @throws PodLogError
   */
  async read(): Promise<readonly (PodLogRecord | PodLogGap)[]> {
    const head = await this.#head()
    if (this.#at > head.written) this.#at = head.written // an offset of another log's life
    if (this.#at < oldest(head)) return [this.#skipTo(oldest(head))]
    if (this.#at === head.written) return []
    const base = segmentOf(this.#at)
    const bytes = Buffer.alloc(Math.min(head.written - base, SEGMENT_BYTES))
    const place = HEADER_BYTES + (base % head.capacity)
    const { bytesRead } = await this.#file.read(bytes, 0, bytes.length, place)
    const after = await this.#head()
    if (bytesRead !== bytes.length) throw new PodLogError('the pod log is cut short')
    if (base < oldest(after)) return [this.#skipTo(oldest(after))]
    const records = [...recordsOf(bytes, base, this.#at)]
    const last = records.at(-1)?.next ?? this.#at
    this.#at = bytes.length === SEGMENT_BYTES ? base + SEGMENT_BYTES : Math.max(last, this.#at)
    return records
  }

  async close(): Promise<void> {
    await this.#file.close()
  }
}
