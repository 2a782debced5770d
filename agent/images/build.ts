/**
 * Layers become a root image: by the worker, whose every number is then computed again here. The
 * same image is built once at a time for a tenant; who asks meanwhile waits for the same build.
 */

import {
  ANSWER_VERSION,
  REQUEST_VERSION,
  type RootfsBuilt,
  type RootfsLimits,
  type RootfsRequest,
  rootfsKey,
  veritySalt,
} from '../../native/workers/rootfs/request.ts'
import { type Canonical, canonicalBytes, parseCanonical } from '../../policy/canonical.ts'
import type { TenantId } from '../../policy/index.ts'
import type { BlobStore } from './blob-store.ts'
import { type Members, objectOf } from './document.ts'
import { ImageError, imageErrorOf } from './errors.ts'
import {
  BUILD_MS,
  ENTRIES_MAX,
  RATIO_FROM_BYTES,
  RATIO_MAX,
  ROOTFS_BYTES_MAX,
  ROOTFS_LIKELY_BYTES,
  ROOTFS_LIKELY_RATIO,
  UNPACKED_BYTES_MAX,
} from './limits.ts'
import type { ImageLayer } from './resolve.ts'
import { orStorageFull, type Reservation, type Room } from './room.ts'
import type { Rootfs, RootfsDraft, RootfsStore } from './rootfs-store.ts'
import { runTask } from './run.ts'

/** Runs the rootfs worker: native's spawn client, or a child process in tests. */
export type RunWorker = (work: {
  readonly kind: 'rootfs'
  readonly request: Uint8Array
  /** Descriptors 5 and up of the worker; they stay the caller's. */
  readonly fds: readonly number[]
  /** How large the output may become. */
  readonly fileBytes: number
  readonly timeoutMs: number
}) => Promise<Uint8Array>

export interface BuildPorts {
  readonly blobs: BlobStore
  readonly rootfs: RootfsStore
  readonly room: Room
  readonly runWorker: RunWorker
}

export interface BuildOptions {
  readonly tenant: TenantId
  /** Whether device nodes are kept: at level vm only. */
  readonly devices: boolean
}

const ANSWER_BYTES_MAX = 1 << 20

const limitsOf = (devices: boolean, outputBytes: number): RootfsLimits => ({
  devices,
  entries: ENTRIES_MAX,
  unpacked_bytes: UNPACKED_BYTES_MAX,
  ratio: RATIO_MAX,
  ratio_from_bytes: RATIO_FROM_BYTES,
  output_bytes: outputBytes,
})

/**
 * Bytes that a root image of these layers is given: what nearly every image fits into, and what the
 * limits admit at most. Nobody knows before the layers were unpacked once, and reserving the most
 * for every image would clear all caches for a hundred megabytes.
 */
function boundsOf(layers: readonly ImageLayer[]): { likely: number; most: number } {
  const sum = (bytesOf: (size: number) => number): number =>
    layers.reduce((total, { size }) => total + bytesOf(size), 0)
  // Alignment and inodes may double small files.
  const unpacked = sum((size) => Math.max(size * RATIO_MAX, RATIO_FROM_BYTES)) * 2
  const likely = sum((size) => size) * ROOTFS_LIKELY_RATIO + ROOTFS_LIKELY_BYTES
  const most = Math.min(unpacked + ROOTFS_LIKELY_BYTES, ROOTFS_BYTES_MAX)
  return { likely: Math.min(likely, most), most }
}

/** The layers make more than the room that the worker was given. */
class OutputTooLarge extends ImageError {
  constructor() {
    super('IMAGE_TOO_LARGE', 'The image unpacks to more than a root image may hold.')
  }
}

/** The key of the root image: the same whatever room its build has. */
export const rootImageKey = (layers: readonly ImageLayer[], devices: boolean): string =>
  rootfsKey(requestOf(layers, devices, 0).layers, limitsOf(devices, 0))

function requestOf(
  layers: readonly ImageLayer[],
  devices: boolean,
  outputBytes: number,
): RootfsRequest {
  return {
    v: REQUEST_VERSION,
    layers: layers.map(({ packing, size, digest, diffId }) => ({
      packing,
      size,
      digest,
      diff_id: diffId,
    })),
    limits: limitsOf(devices, outputBytes),
  }
}

/** The request as plain JSON. */
const documentOf = ({ v, layers, limits }: RootfsRequest): Canonical => ({
  v,
  layers: layers.map(({ packing, size, digest, diff_id }) => ({ packing, size, digest, diff_id })),
  limits: { ...limits },
})

const failed = (why: string, cause?: unknown): ImageError =>
  new ImageError('IMAGE_BUILD_FAILED', `The root image could not be built: ${why}.`, { cause })

const unreadable = (cause?: unknown): ImageError =>
  failed('the worker answered something unreadable', cause)

function parseAnswer(bytes: Uint8Array): Members {
  try {
    return objectOf(parseCanonical(bytes, ANSWER_BYTES_MAX), 'the answer', [])
  } catch (error) {
    throw unreadable(error)
  }
}

/** The answer of a worker that refuses, as the error it stands for. */
function refusalOf({ code, message }: Members): ImageError {
  if (typeof code !== 'string' || typeof message !== 'string') return unreadable()
  if (code === 'ROOTFS_OUTPUT_TOO_LARGE') return new OutputTooLarge()
  const what = message.replace(/[^\x20-\x7e]/gu, '?').slice(0, 500)
  return imageErrorOf(code, `The image's layers were refused: ${what}.`)
}

/** A file system of 32 TiB; far above what the limits let through. */
const BLOCKS_MAX = 2 ** 33

/** The claims of a worker that says it succeeded. @throws ImageError with the worker's own code */
function claimsOf(bytes: Uint8Array): Pick<RootfsBuilt, 'data_blocks' | 'root' | 'entries'> {
  const answer = parseAnswer(bytes)
  if (answer['v'] !== ANSWER_VERSION) throw failed('the worker is of another version')
  if (answer['ok'] !== true) throw refusalOf(answer)
  const { data_blocks, root, entries } = answer
  if (typeof root !== 'string' || typeof data_blocks !== 'number' || typeof entries !== 'number') {
    throw unreadable()
  }
  if (!Number.isSafeInteger(data_blocks) || data_blocks < 2 || data_blocks > BLOCKS_MAX) {
    throw failed('the worker claims an impossible size')
  }
  return { data_blocks, root, entries }
}

/** Runs the worker on open descriptors and believes nothing it says that can be computed. */
async function buildWith(
  ports: BuildPorts,
  request: RootfsRequest,
  draft: RootfsDraft,
  layerFds: readonly number[],
): Promise<Rootfs> {
  const answer = await ports.runWorker({
    kind: 'rootfs',
    request: canonicalBytes(documentOf(request)),
    fds: [draft.handle.fd, ...layerFds],
    fileBytes: request.limits.output_bytes,
    timeoutMs: BUILD_MS,
  })
  const { data_blocks, root, entries } = claimsOf(answer)
  const salt = veritySalt(rootfsKey(request.layers, request.limits)).toString('hex')
  const found = await runTask(
    'recompute',
    { layerFds, outputFd: draft.handle.fd, dataBlocks: data_blocks, salt },
    { bytes: Infinity, timeoutMs: BUILD_MS },
  )
  if (!request.layers.every(({ digest }, index) => digest === found.layerDigests[index])) {
    throw new ImageError(
      'IMAGE_DIGEST_MISMATCH',
      'A layer on disk is not what was pulled any more.',
    )
  }
  if (!found.treeMatches || found.root !== root) throw failed('the worker computed another root')
  return draft.keep({ size: found.size, verity: { data_blocks, root, salt }, entries })
}

export class Builder {
  readonly #ports: BuildPorts
  readonly #running = new Map<string, Promise<Rootfs>>()

  constructor(ports: BuildPorts) {
    this.#ports = ports
  }

  /**
   * The root image of layers that the tenant has pulled, from the cache where it was built before.
   * @throws ImageError
   */
  async build(layers: readonly ImageLayer[], options: BuildOptions): Promise<Rootfs> {
    const key = rootImageKey(layers, options.devices)
    const cached = await this.#ports.rootfs.find(options.tenant, key)
    if (cached !== null) return cached
    const name = `${options.tenant}/${key}`
    const running = this.#running.get(name) ?? this.#build(layers, key, options)
    this.#running.set(name, running)
    return running.finally(() => this.#running.delete(name))
  }

  async #build(layers: readonly ImageLayer[], key: string, options: BuildOptions): Promise<Rootfs> {
    const { likely, most } = boundsOf(layers)
    try {
      return await this.#buildWithin(likely, layers, key, options)
    } catch (error) {
      if (!(error instanceof OutputTooLarge) || likely === most) throw error
      return this.#buildWithin(most, layers, key, options)
    }
  }

  /** Reserves room for the image, and gives the worker no more than that. */
  async #buildWithin(
    bytes: number,
    layers: readonly ImageLayer[],
    key: string,
    { tenant, devices }: BuildOptions,
  ): Promise<Rootfs> {
    const { rootfs, room } = this.#ports
    let draft: RootfsDraft | null = null
    let reservation: Reservation | null = null
    try {
      const begun = await rootfs.begin(tenant, key)
      draft = begun
      // The worker does not say how far it is; its file does. The record beside it is to come.
      const written = async () => ({ bytes: await begun.allocated(), files: 0 })
      reservation = await room.take(tenant, { bytes, files: 1 }, written)
      return await this.#attempt(requestOf(layers, devices, bytes), layers, begun, tenant)
    } catch (error) {
      throw orStorageFull(error, bytes)
    } finally {
      // First: it asks the file how much is written.
      reservation?.end()
      await draft?.end()
    }
  }

  async #attempt(
    request: RootfsRequest,
    layers: readonly ImageLayer[],
    draft: RootfsDraft,
    tenant: TenantId,
  ): Promise<Rootfs> {
    const { blobs } = this.#ports
    const opened = await Promise.allSettled(layers.map(({ digest }) => blobs.open(tenant, digest)))
    const handles = opened.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    try {
      if (handles.length < layers.length) throw failed('a layer was not pulled')
      const fds = handles.map(({ fd }) => fd)
      return await buildWith(this.#ports, request, draft, fds)
    } catch (error) {
      // A blob that went bad on disk would fail every later launch.
      if (error instanceof ImageError && error.code === 'IMAGE_DIGEST_MISMATCH') {
        await Promise.all(layers.map(({ digest }) => blobs.remove(tenant, digest)))
      }
      throw error
    } finally {
      await Promise.all(handles.map((handle) => handle.close()))
    }
  }
}
