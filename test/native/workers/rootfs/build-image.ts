/** Builds images in this process, for tests of what the worker makes. */
import { createHash } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { buildRootfs } from '../../../../native/workers/rootfs/build.ts'
import {
  type LayerPacking,
  REQUEST_VERSION,
  type RootfsBuilt,
  type RootfsLayer,
  type RootfsLimits,
} from '../../../../native/workers/rootfs/request.ts'

export const LIMITS: RootfsLimits = {
  devices: true,
  entries: 10_000,
  unpacked_bytes: 1 << 28,
  ratio: 100,
  ratio_from_bytes: 1 << 23,
  output_bytes: 1 << 29,
}

export const digestOf = (bytes: Uint8Array): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`

const PACKERS: Readonly<Record<LayerPacking, (bytes: Buffer) => Buffer>> = {
  none: (bytes) => bytes,
  gzip: (bytes) => gzipSync(bytes, { level: 6 }),
  zstd: (bytes) => zstdCompressSync(bytes),
}

export interface PackedLayer {
  readonly bytes: Buffer
  readonly layer: RootfsLayer
}

export function pack(tar: Buffer, packing: LayerPacking = 'gzip'): PackedLayer {
  const bytes = PACKERS[packing](tar)
  const layer = { packing, size: bytes.length, digest: digestOf(bytes), diff_id: digestOf(tar) }
  return { bytes, layer }
}

export interface BuiltImage {
  readonly answer: RootfsBuilt
  /** File system and tree. */
  readonly bytes: Buffer
}

/** @throws RootfsFailure */
export async function buildPacked(
  layers: readonly PackedLayer[],
  limits: Partial<RootfsLimits> = {},
): Promise<BuiltImage> {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-rootfs-'))
  const fds: number[] = []
  const open = (name: string, bytes: Buffer, flags: string): number => {
    const place = path.join(directory, name)
    writeFileSync(place, bytes)
    const fd = openSync(place, flags)
    fds.push(fd)
    return fd
  }
  try {
    const output = open('output', Buffer.alloc(0), 'r+')
    const blobs = layers.map(({ bytes }, index) => open(`layer-${index}`, bytes, 'r'))
    const request = {
      v: REQUEST_VERSION,
      layers: layers.map(({ layer }) => layer),
      limits: { ...LIMITS, ...limits },
    } as const
    const answer = await buildRootfs(request, output, blobs)
    return { answer, bytes: readFileSync(path.join(directory, 'output')) }
  } finally {
    for (const fd of fds) closeSync(fd)
    rmSync(directory, { recursive: true })
  }
}

/** An image of layers, lowest first. */
export const build = (
  tars: readonly Buffer[],
  limits: Partial<RootfsLimits> = {},
): Promise<BuiltImage> =>
  buildPacked(
    tars.map((tar) => pack(tar)),
    limits,
  )
