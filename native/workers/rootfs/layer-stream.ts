/**
 * A layer's blob as the tar archive in it: unpacked, counted and hashed on both sides. Caps apply to
 * what comes out, so a small blob that unpacks without end stops early (1000:1 is easy with gzip).
 */
import { createHash } from 'node:crypto'
import { fstatSync, readSync } from 'node:fs'
import { pipeline, Readable } from 'node:stream'
import { createGunzip } from 'node:zlib'

import { invalid, RootfsFailure, tooLarge } from './failure.ts'
import type { RootfsLayer, RootfsLimits } from './request.ts'
import { unpackZstd } from './zstd.ts'

const CHUNK_BYTES = 256 * 1024

/** Bytes left of the cap over all layers; one object for a whole pass. */
export interface Budget {
  unpackedBytes: number
}

/** The blob from its first byte, whatever the descriptor's offset; its digest is checked at its end. */
function* blob(fd: number, layer: RootfsLayer): Generator<Buffer> {
  if (fstatSync(fd).size !== layer.size) {
    throw new RootfsFailure('IMAGE_DIGEST_MISMATCH', `layer ${layer.digest} has another size`)
  }
  const hash = createHash('sha256')
  let at = 0
  while (at < layer.size) {
    const chunk = Buffer.allocUnsafe(Math.min(CHUNK_BYTES, layer.size - at))
    const count = readSync(fd, chunk, 0, chunk.length, at)
    if (count === 0) break
    at += count
    hash.update(chunk.subarray(0, count))
    yield chunk.subarray(0, count)
  }
  if (`sha256:${hash.digest('hex')}` !== layer.digest) {
    throw new RootfsFailure('IMAGE_DIGEST_MISMATCH', `layer ${layer.digest} has another digest`)
  }
}

function unpacked(fd: number, layer: RootfsLayer): AsyncIterable<Buffer> {
  const source = Readable.from(blob(fd, layer), { objectMode: false, highWaterMark: CHUNK_BYTES })
  if (layer.packing === 'none') return source
  if (layer.packing === 'zstd') return unpackZstd(source)
  // The error itself arrives where the stream is read.
  return pipeline(source, createGunzip({ chunkSize: CHUNK_BYTES }), () => undefined)
}

/** Whether an error is zlib's, about the bytes it was given. */
const isUnpackError = (error: unknown): error is Error =>
  error instanceof Error && 'code' in error && /^(Z_|ZSTD_|ERR_ZLIB)/u.test(String(error.code))

/**
 * The archive, chunk by chunk. Reading to the end checks both digests; `RootfsFailure` otherwise.
 */
export async function* openLayer(
  fd: number,
  layer: RootfsLayer,
  limits: RootfsLimits,
  budget: Budget,
): AsyncGenerator<Buffer> {
  const ratioBytes = Math.max(limits.ratio_from_bytes, layer.size * limits.ratio)
  const hash = createHash('sha256')
  let count = 0
  try {
    for await (const chunk of unpacked(fd, layer)) {
      count += chunk.length
      budget.unpackedBytes -= chunk.length
      if (budget.unpackedBytes < 0) {
        throw tooLarge(`the image unpacks to more than ${limits.unpacked_bytes} bytes`)
      }
      if (count > ratioBytes) {
        throw tooLarge(`layer ${layer.digest} unpacks to more than ${limits.ratio} times its size`)
      }
      hash.update(chunk)
      yield chunk
    }
  } catch (error) {
    if (!isUnpackError(error)) throw error
    throw invalid(`layer ${layer.digest} is not proper ${layer.packing}: ${error.message}`)
  }
  if (`sha256:${hash.digest('hex')}` !== layer.diff_id) {
    throw new RootfsFailure(
      'IMAGE_DIGEST_MISMATCH',
      `layer ${layer.digest} unpacks to something else than the image's configuration says`,
    )
  }
}
