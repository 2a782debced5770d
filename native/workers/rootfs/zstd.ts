/**
 * Zstandard in several frames (RFC 8878 section 3): Node's decompressor stops silently after the
 * first one, and zstd:chunked layers have many. So the frames are cut here, by the sizes that their
 * blocks announce, and each is given to a decompressor of its own.
 */
/* oxlint-disable no-await-in-loop -- a stream is read in order */
import { pipeline, Readable } from 'node:stream'
import { constants, createZstdDecompress } from 'node:zlib'

import { ByteReader } from './byte-reader.ts'
import { invalid } from './failure.ts'

const FRAME_MAGIC = 0xfd2fb528
/** The lowest of sixteen magic numbers of frames that hold something for others. */
const SKIPPABLE_MAGIC = 0x184d2a50
const BLOCK_BYTES_MAX = 128 * 1024
const CHUNK_BYTES = 256 * 1024
/** 128 MiB of window: what `zstd -d` takes without being told otherwise. */
const WINDOW_LOG_MAX = 27
const RLE = 1

/** Bytes of the frame header behind its descriptor byte. */
function headerBytes(descriptor: number): number {
  const isSingleSegment = (descriptor & 0x20) !== 0
  const contentSize = [isSingleSegment ? 1 : 0, 2, 4, 8][descriptor >> 6] ?? 0
  const dictionaryId = [0, 1, 2, 4][descriptor & 3] ?? 0
  return (isSingleSegment ? 0 : 1) + dictionaryId + contentSize
}

/** One frame, from its magic number to its checksum. */
async function* frame(reader: ByteReader, magic: Buffer): AsyncGenerator<Buffer> {
  yield magic
  const descriptor = Buffer.from(await reader.read(1))
  yield descriptor
  const flags = descriptor[0] ?? 0
  yield Buffer.from(await reader.read(headerBytes(flags)))
  for (let isLast = false; !isLast; ) {
    const header = Buffer.from(await reader.read(3))
    const word = header.readUIntLE(0, 3)
    isLast = (word & 1) === 1
    const size = ((word >> 1) & 3) === RLE ? 1 : word >> 3
    if (size > BLOCK_BYTES_MAX) throw invalid('a zstd block is larger than the format permits')
    yield header
    yield Buffer.from(await reader.read(size))
  }
  if ((flags & 4) !== 0) yield Buffer.from(await reader.read(4))
}

/** What all frames of a stream hold, one after the other. */
export async function* unpackZstd(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const reader = new ByteReader(source)
  for (;;) {
    const found = await reader.readOrEnd(4)
    if (found === null) return
    const magic = Buffer.from(found)
    const number = magic.readUInt32LE(0)
    if (number >>> 4 === SKIPPABLE_MAGIC >>> 4) {
      await reader.pass((await reader.read(4)).readUInt32LE(0), () => undefined)
    } else if (number === FRAME_MAGIC) {
      const decompressor = createZstdDecompress({
        chunkSize: CHUNK_BYTES,
        params: { [constants.ZSTD_d_windowLogMax]: WINDOW_LOG_MAX },
      })
      // The error itself arrives where the stream is read.
      yield* pipeline(Readable.from(frame(reader, magic)), decompressor, () => undefined)
    } else throw invalid('a layer said to be zstd is not')
  }
}
