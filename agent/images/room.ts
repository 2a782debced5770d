/**
 * Room on the disk that all tenants share, and that the audit log needs: below a floor of free space
 * nothing is pulled or built. What is under way has its room reserved, so that two pulls at once do
 * not both count on the last of it.
 */
import { mkdir, statfs } from 'node:fs/promises'

import type { TenantId } from '../../policy/index.ts'
import { ImageError } from './errors.ts'
import { FREE_BYTES_MIN, FREE_SHARE_MIN, RESERVED_BYTES_MAX } from './limits.ts'

/** Frees about `bytes`; false when nothing was freed, because nothing is left that could be. */
export type GiveWay = (bytes: number) => Promise<boolean>

/** Room that nobody else gets. Ends with `end`, whatever was written. */
export interface Reservation {
  /** These bytes are on disk now: free space has less of them, and so has the reservation. */
  written(bytes: number): void
  end(): void
}

/** Free bytes that a file system keeps, of the size statfs(2) tells. */
export const floorOf = ({ blocks, bsize }: { blocks: number; bsize: number }): number =>
  Math.max(FREE_BYTES_MIN, Math.ceil(blocks * bsize * FREE_SHARE_MIN))

const storageFull = (bytes: number, options?: ErrorOptions): ImageError =>
  new ImageError(
    'IMAGE_STORAGE_FULL',
    `The image needs ${Math.ceil(bytes / 2 ** 20)} MiB on this host's disk, and so much is not free. Try again later or run a smaller image; the operator can free disk space.`,
    options,
  )

const tenantBusy = (): ImageError =>
  new ImageError(
    'IMAGE_BUSY',
    `The tenant's images under way have ${RESERVED_BYTES_MAX / 2 ** 30} GiB of disk reserved between them already. Try again when one is done.`,
  )

const isFull = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')

/** The disk was filled by somebody else meanwhile: the same refusal as in advance. */
export const orStorageFull = (error: unknown, bytes: number): unknown =>
  isFull(error) ? storageFull(bytes, { cause: error }) : error

export class Room {
  readonly #directory: string
  readonly #giveWay: GiveWay
  #reserved = 0
  readonly #reservedBy = new Map<TenantId, number>()
  #queue: Promise<unknown> = Promise.resolve()

  /** @param directory on the file system in question; made when needed */
  constructor(directory: string, giveWay: GiveWay) {
    this.#directory = directory
    this.#giveWay = giveWay
  }

  /** Runs what deletes from the caches, one such task after the other. */
  alone<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#queue.then(task)
    this.#queue = done.catch(() => undefined)
    return done
  }

  /**
   * Room for `bytes` above the floor, from the caches where it is not free.
   * @throws ImageError IMAGE_STORAGE_FULL, IMAGE_BUSY
   */
  async take(tenant: TenantId, bytes: number): Promise<Reservation> {
    if (bytes > 0) await this.alone(() => this.#take(tenant, bytes))
    let left = bytes
    const release = (some: number): void => {
      const given = Math.min(some, left)
      left -= given
      this.#count(tenant, -given)
    }
    return { written: release, end: () => release(left) }
  }

  #count(tenant: TenantId, bytes: number): void {
    this.#reserved += bytes
    const own = (this.#reservedBy.get(tenant) ?? 0) + bytes
    if (own > 0) this.#reservedBy.set(tenant, own)
    else this.#reservedBy.delete(tenant)
  }

  async #take(tenant: TenantId, bytes: number): Promise<void> {
    if ((this.#reservedBy.get(tenant) ?? 0) + bytes > RESERVED_BYTES_MAX) throw tenantBusy()
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    for (let lacking = await this.#lacking(bytes); lacking > 0; ) {
      // oxlint-disable-next-line no-await-in-loop -- what was freed is measured, not believed
      if (!(await this.#giveWay(lacking))) throw storageFull(bytes)
      // oxlint-disable-next-line no-await-in-loop
      lacking = await this.#lacking(bytes)
    }
    this.#count(tenant, bytes)
  }

  async #lacking(bytes: number): Promise<number> {
    // Read first: what is written while statfs runs then counts twice rather than not at all.
    const reserved = this.#reserved
    const found = await statfs(this.#directory)
    return reserved + bytes + floorOf(found) - found.bavail * found.bsize
  }
}
