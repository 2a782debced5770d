/**
 * The write-ahead log's bytes: a segment is a header block and then batches, each from a boundary
 * of 4096 bytes on, so that a torn write never touches what was acknowledged before.
 *
 * A batch carries a digest of its own and one that chains it to its predecessor. So a bad batch at
 * the end (a torn write, never acknowledged: cut off) is told from a bad batch with a good one
 * behind it (corruption: refused). Losing acknowledged records silently is the worst a log can do.
 */
import { HASH_BYTES, sha256 } from './merkle.ts'

export const BLOCK_BYTES = 4096
const VERSION = 1
const BATCH_MAGIC = Buffer.from('CMWB')
const SEGMENT_MAGIC = Buffer.from('CMWS')
/** magic, version, first index (u64), count, payload bytes; then the two digests. */
const BATCH_HEAD = 24
const BATCH_HEADER_BYTES = BATCH_HEAD + 2 * HASH_BYTES
/** magic, version, first index (u64), chain digest before the first batch; then its own digest. */
const SEGMENT_HEAD = 16 + HASH_BYTES

/** Chain digest before the first batch of a log. */
export const CHAIN_START: Buffer = Buffer.alloc(HASH_BYTES)

/** Where a segment begins. */
export interface SegmentStart {
  /** Index of its first record. */
  readonly index: number
  /** Chain digest of the batch before it. */
  readonly chain: Buffer
}

/** Bytes up to the next block boundary. */
export const roundUp = (bytes: number): number => Math.ceil(bytes / BLOCK_BYTES) * BLOCK_BYTES

/** Bytes a batch of these entries takes in a segment. */
export const batchBytes = (entries: readonly Uint8Array[]): number =>
  roundUp(BATCH_HEADER_BYTES + entries.reduce((sum, entry) => sum + 4 + entry.length, 0))

export function encodeSegment(start: SegmentStart): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  SEGMENT_MAGIC.copy(block)
  block.writeUInt32LE(VERSION, 4)
  block.writeBigUInt64LE(BigInt(start.index), 8)
  start.chain.copy(block, 16)
  sha256(block.subarray(0, SEGMENT_HEAD)).copy(block, SEGMENT_HEAD)
  return block
}

/** The header of a segment; null when it is none. */
export function decodeSegment(block: Buffer): SegmentStart | null {
  if (block.length < BLOCK_BYTES) return null
  const start = {
    index: Number(block.readBigUInt64LE(8)),
    chain: block.subarray(16, 16 + HASH_BYTES),
  }
  // Every byte of the block is determined by what was read, so that no change of one goes unseen.
  return encodeSegment(start).equals(block.subarray(0, BLOCK_BYTES)) ? start : null
}

/** A batch as it is written, and the chain digest after it. */
export function encodeBatch(
  start: SegmentStart,
  entries: readonly Uint8Array[],
): { readonly bytes: Buffer; readonly chain: Buffer } {
  const bytes = Buffer.alloc(batchBytes(entries))
  let at = BATCH_HEADER_BYTES
  for (const entry of entries) {
    at = bytes.writeUInt32LE(entry.length, at)
    bytes.set(entry, at)
    at += entry.length
  }
  BATCH_MAGIC.copy(bytes)
  bytes.writeUInt32LE(VERSION, 4)
  bytes.writeBigUInt64LE(BigInt(start.index), 8)
  bytes.writeUInt32LE(entries.length, 16)
  bytes.writeUInt32LE(at - BATCH_HEADER_BYTES, 20)
  const own = sha256(bytes.subarray(0, BATCH_HEAD), bytes.subarray(BATCH_HEADER_BYTES, at))
  const chain = sha256(start.chain, own)
  own.copy(bytes, BATCH_HEAD)
  chain.copy(bytes, BATCH_HEAD + HASH_BYTES)
  return { bytes, chain }
}

interface Batch {
  readonly index: number
  readonly entries: readonly Buffer[]
  /** Offset after the batch and its padding. */
  readonly end: number
}

function decodeEntries(payload: Buffer): Buffer[] | null {
  const entries: Buffer[] = []
  for (let at = 0; at < payload.length; ) {
    if (at + 4 > payload.length) return null
    const end = at + 4 + payload.readUInt32LE(at)
    if (end > payload.length) return null
    entries.push(payload.subarray(at + 4, end))
    at = end
  }
  return entries
}

/** The batch at `offset` if its own digest is right; its place in the chain is not checked. */
function decodeBatch(segment: Buffer, offset: number): Batch | null {
  const head = segment.subarray(offset, offset + BATCH_HEADER_BYTES)
  if (head.length < BATCH_HEADER_BYTES || !head.subarray(0, 4).equals(BATCH_MAGIC)) return null
  const payloadEnd = offset + BATCH_HEADER_BYTES + head.readUInt32LE(20)
  const end = roundUp(payloadEnd)
  if (head.readUInt32LE(4) !== VERSION || end > segment.length) return null
  const payload = segment.subarray(offset + BATCH_HEADER_BYTES, payloadEnd)
  const own = head.subarray(BATCH_HEAD, BATCH_HEAD + HASH_BYTES)
  if (!sha256(head.subarray(0, BATCH_HEAD), payload).equals(own)) return null
  const entries = decodeEntries(payload)
  const index = Number(head.readBigUInt64LE(8))
  return entries?.length === head.readUInt32LE(16) ? { index, entries, end } : null
}

/** What a segment holds. */
export interface SegmentContent {
  readonly start: SegmentStart
  readonly entries: readonly Buffer[]
  /** Where the next batch goes, and what it follows. */
  readonly end: number
  readonly next: SegmentStart
  /** Bytes after `end` that are not zero and no batch: a torn write. */
  readonly tornBytes: number
}

/** Why a segment is not one that this program wrote. */
export class SegmentCorrupt extends Error {
  override readonly name = 'SegmentCorrupt'
  /** Byte offset in the segment. */
  readonly offset: number
  constructor(offset: number, problem: string) {
    super(`${problem} at byte ${offset}`)
    this.offset = offset
  }
}

/**
 * Reads a segment up to its last good batch.
 * @throws SegmentCorrupt for a bad header, a batch out of its chain, or a good one after a bad one
 */
export function scanSegment(segment: Buffer): SegmentContent {
  const start = decodeSegment(segment)
  if (start === null) throw new SegmentCorrupt(0, 'the segment header is not whole')
  const entries: Buffer[] = []
  let next = start
  let end = BLOCK_BYTES
  for (;;) {
    const batch = decodeBatch(segment, end)
    if (batch === null) break
    const expected = encodeBatch(next, batch.entries)
    if (batch.index !== next.index || !expected.bytes.equals(segment.subarray(end, batch.end))) {
      throw new SegmentCorrupt(end, 'a batch does not follow the one before it')
    }
    entries.push(...batch.entries)
    next = { index: next.index + batch.entries.length, chain: expected.chain }
    end = batch.end
  }
  for (let offset = end; offset < segment.length; offset += BLOCK_BYTES) {
    if (decodeBatch(segment, offset) !== null) {
      throw new SegmentCorrupt(end, `a damaged batch has a good one behind it, at ${offset},`)
    }
  }
  return { start, entries, end, next, tornBytes: countTorn(segment.subarray(end)) }
}

/** Bytes up to the last one that is not zero. */
function countTorn(rest: Buffer): number {
  let length = rest.length
  while (length >= BLOCK_BYTES && rest.subarray(length - BLOCK_BYTES, length).every(isZero)) {
    length -= BLOCK_BYTES
  }
  while (length > 0 && rest[length - 1] === 0) length -= 1
  return length
}

const isZero = (byte: number): boolean => byte === 0
