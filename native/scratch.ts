/**
 * The writable disk of a pod: for each launch a fresh file equal to a known empty file system.
 *
 * The template is read once; a copy writes only its data blocks and leaves the rest a hole, so that
 * a scratch of any size costs what the empty file system costs.
 */
import { createHash } from 'node:crypto'
import { type FileHandle, open } from 'node:fs/promises'

const BLOCK_BYTES = 4096
const READ_BYTES = 256 * BLOCK_BYTES
const DATA_BYTES_MAX = 64 << 20

interface Extent {
  readonly offset: number
  readonly bytes: Buffer
}

/** A known empty file system, held in memory as its data blocks. */
export interface ScratchTemplate {
  readonly size: number
  /** Block digest of docs/formats.md section 2; spawn computes the same. */
  readonly digest: string
  readonly extents: readonly Extent[]
}

const zero = Buffer.alloc(BLOCK_BYTES)

function index(offset: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(offset / BLOCK_BYTES))
  return bytes
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(value))
  return bytes
}

/** Extents of a buffer: runs of blocks that are not all zero. */
function* runs(bytes: Buffer, base: number): Generator<Extent> {
  let start = -1
  for (let at = 0; at <= bytes.length; at += BLOCK_BYTES) {
    const data = at < bytes.length && !zero.equals(bytes.subarray(at, at + BLOCK_BYTES))
    if (data && start < 0) start = at
    if (!data && start >= 0) {
      yield { offset: base + start, bytes: Buffer.from(bytes.subarray(start, at)) }
      start = -1
    }
  }
}

async function readExtents(file: FileHandle, size: number): Promise<readonly Extent[]> {
  const extents: Extent[] = []
  let held = 0
  for (let at = 0; at < size; at += READ_BYTES) {
    const bytes = Buffer.alloc(Math.min(READ_BYTES, size - at))
    // oxlint-disable-next-line no-await-in-loop -- one buffer at a time bounds memory
    const { bytesRead } = await file.read(bytes, 0, bytes.length, at)
    if (bytesRead !== bytes.length)
      throw new Error('the scratch template changed while it was read')
    for (const extent of runs(bytes, at)) {
      held += extent.bytes.length
      if (held > DATA_BYTES_MAX)
        throw new RangeError('the scratch template is not an empty file system')
      extents.push(extent)
    }
  }
  return extents
}

/** Reads a template: a raw image of whole blocks. */
export async function loadScratchTemplate(path: string): Promise<ScratchTemplate> {
  const file = await open(path, 'r')
  try {
    const { size } = await file.stat()
    if (size === 0 || size % BLOCK_BYTES !== 0) {
      throw new RangeError('the scratch template must be whole blocks of 4096 bytes')
    }
    const extents = await readExtents(file, size)
    const hash = createHash('sha256')
    for (const { offset, bytes } of extents) {
      for (let at = 0; at < bytes.length; at += BLOCK_BYTES) {
        hash.update(index(offset + at)).update(bytes.subarray(at, at + BLOCK_BYTES))
      }
    }
    return { size, digest: `sha256:${hash.update(u64(size)).digest('hex')}`, extents }
  } finally {
    await file.close()
  }
}

/** Creates a fresh scratch file (mode 0600, it must not exist) and returns it open for reading and writing. */
export async function createScratch(path: string, template: ScratchTemplate): Promise<FileHandle> {
  const file = await open(path, 'wx+', 0o600)
  try {
    await file.truncate(template.size)
    for (const { offset, bytes } of template.extents) {
      // oxlint-disable-next-line no-await-in-loop -- a handful of extents of one file
      await file.write(bytes, 0, bytes.length, offset)
    }
    return file
  } catch (cause) {
    await file.close()
    throw cause
  }
}
