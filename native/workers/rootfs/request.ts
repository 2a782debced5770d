/**
 * What agent/images asks of the worker and what it gets back (docs/formats.md section 9). Both are
 * canonical JSON; the agent treats the answer as hostile and recomputes what it can.
 */
import { createHash } from 'node:crypto'

export const REQUEST_VERSION = 'casemate.rootfs-request/1'
export const ANSWER_VERSION = 'casemate.rootfs-answer/1'
/** Part of the key of every image built: raise it when the same layers give other bytes. */
export const BUILDER_VERSION = 'casemate.rootfs/1'

/** How a layer's blob is packed. */
export const LAYER_PACKINGS = ['none', 'gzip', 'zstd'] as const
export type LayerPacking = (typeof LAYER_PACKINGS)[number]

export interface RootfsLayer {
  readonly packing: LayerPacking
  /** Size of the blob, packed. */
  readonly size: number
  /** `sha256:` of the blob, packed. */
  readonly digest: string
  /** `sha256:` of the tar archive, unpacked. */
  readonly diff_id: string
}

export interface RootfsLimits {
  /** Whether device nodes are kept. Only a machine of its own may hold them (level vm). */
  readonly devices: boolean
  /** Entries of all layers together. */
  readonly entries: number
  /** Bytes of all layers together, unpacked. */
  readonly unpacked_bytes: number
  /** How many times larger than packed a layer may be, once above `ratio_from_bytes`. */
  readonly ratio: number
  readonly ratio_from_bytes: number
  /** Bytes of the output, file system and tree: there is no room for more. */
  readonly output_bytes: number
}

export interface RootfsRequest {
  readonly v: typeof REQUEST_VERSION
  /** Lowest layer first, as in the manifest. */
  readonly layers: readonly RootfsLayer[]
  readonly limits: RootfsLimits
}

export interface RootfsBuilt {
  readonly v: typeof ANSWER_VERSION
  readonly ok: true
  /** Number of 4096-byte blocks of the file system; the tree comes after them. */
  readonly data_blocks: number
  /** Hex root and salt of the dm-verity tree. */
  readonly root: string
  readonly salt: string
  /** Bytes of the output: blocks and tree. */
  readonly size: number
  /** As found by hashing, in the order of the request. */
  readonly layer_digests: readonly string[]
  readonly diff_ids: readonly string[]
  /** Inodes in the image. */
  readonly entries: number
}

export interface RootfsRefused {
  readonly v: typeof ANSWER_VERSION
  readonly ok: false
  readonly code: string
  readonly message: string
}

export type RootfsAnswer = RootfsBuilt | RootfsRefused

/**
 * Names what is built: builder, options and layers, packed and unpacked. The packed digests are in
 * it so that nobody gets a finished image for layers that were never checked against each other.
 * @returns 64 hex digits
 */
export function rootfsKey(layers: readonly RootfsLayer[], limits: RootfsLimits): string {
  const hash = createHash('sha256')
  hash.update(`${BUILDER_VERSION}\ndevices=${String(limits.devices)}\n`)
  for (const layer of layers) hash.update(`${layer.digest} ${layer.diff_id}\n`)
  return hash.digest('hex')
}

/** Salt of the Merkle tree: public, and the same for the same image everywhere. */
export const veritySalt = (key: string): Buffer =>
  createHash('sha256').update(`casemate-verity-v1\0${key}`).digest()

/** UUID of the file system, for the same reason not random. */
export const fileSystemUuid = (key: string): Buffer =>
  createHash('sha256').update(`casemate-uuid-v1\0${key}`).digest().subarray(0, 16)
