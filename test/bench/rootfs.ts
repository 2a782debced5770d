/** The rootfs worker on a layer that is generated, so that it is the same everywhere. */
import { createCipheriv } from 'node:crypto'
import { closeSync, openSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import type { RootfsAnswer, RootfsLayer } from '../../native/workers/rootfs/request.ts'
import { REQUEST_VERSION } from '../../native/workers/rootfs/request.ts'
import { canonicalBytes } from '../../policy/canonical.ts'
import { LIMITS, pack } from '../native/workers/rootfs/build-image.ts'
import { archive, directory, file } from '../native/workers/rootfs/tar-writer.ts'
import { runWorker } from '../system/images.ts'
import { type Figure, figure } from './figures.ts'
import { nowUs } from './timing.ts'

const BODY_BYTES = 64 * 2 ** 20
const BUILDS = 3
const FILES_PER_FOLDER = 100
/** Sizes of files, in turn: many small ones, few large ones. */
const SIZES = [200, 700, 1500, 3000, 5000, 9000, 20_000, 60_000, 300_000]

/** A keystream: random to a compressor, and the same every time. */
const keystream = (bytes: number): Buffer =>
  createCipheriv('aes-128-ctr', Buffer.alloc(16), Buffer.alloc(16)).update(Buffer.alloc(bytes))

/** 64 MiB of files, half of each random and half hexadecimal digits, so that gzip has work and success. */
export function generatedTar(bodyBytes: number = BODY_BYTES): Buffer {
  const random = keystream(bodyBytes)
  const entries: Buffer[] = []
  let at = 0
  for (let index = 0; at < bodyBytes; index += 1) {
    const folder = `folder-${Math.floor(index / FILES_PER_FOLDER)}`
    if (index % FILES_PER_FOLDER === 0) entries.push(directory(folder))
    const size = Math.min(SIZES[index % SIZES.length] ?? 0, bodyBytes - at)
    const half = Math.floor(size / 2)
    const digits = random.toString('hex', at, at + Math.ceil(half / 2)).slice(0, half)
    const body = Buffer.concat([Buffer.from(digits), random.subarray(at + half, at + size)])
    entries.push(file(`${folder}/file-${index}`, body))
    at += size
  }
  return archive(...entries)
}

/** One build in a fresh worker; seconds from starting it to its answer. */
async function build(place: string, layer: RootfsLayer, blob: string): Promise<number> {
  writeFileSync(place, '')
  const fds = [openSync(place, 'r+'), openSync(blob, 'r')]
  try {
    const request = { v: REQUEST_VERSION, layers: [{ ...layer }], limits: { ...LIMITS } }
    const began = nowUs()
    const bytes = await runWorker('rootfs', canonicalBytes(request), fds)
    const took = nowUs() - began
    const answer = JSON.parse(bytes.toString('utf8')) as RootfsAnswer
    if (!answer.ok) throw new Error(`the rootfs worker refused: ${answer.code} ${answer.message}`)
    if (statSync(place).size !== answer.size)
      throw new Error('the rootfs worker wrote another size')
    return took / 1_000_000
  } finally {
    for (const fd of fds) closeSync(fd)
  }
}

export async function measureRootfs(folder: string): Promise<readonly Figure[]> {
  const tar = generatedTar()
  const figures: Figure[] = []
  for (const packing of ['none', 'gzip'] as const) {
    const { bytes, layer } = pack(tar, packing)
    const blob = path.join(folder, `layer.${packing}`)
    writeFileSync(blob, bytes)
    const rates: number[] = []
    for (let count = 0; count < BUILDS; count += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one at a time
      const seconds = await build(path.join(folder, 'rootfs'), layer, blob)
      rates.push(tar.length / 1_000_000 / seconds)
    }
    figures.push(figure(`rootfs.build.${packing}`, 'MB/s', rates))
  }
  return figures
}
