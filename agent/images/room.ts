/**
 * Room for images: on the disk that all tenants share, and that the audit log needs, and within the
 * most that one tenant may have there. Below a floor of free space nothing is pulled or built. What
 * is under way has its room reserved, so that two pulls at once do not both count on the last of it.
 */
import { mkdir, statfs } from 'node:fs/promises'

import type { TenantId } from '../../policy/index.ts'
import { Turns } from '../turns.ts'
import { type Amount, isNothing, plus, totalOf, without } from './amount.ts'
import { ImageError } from './errors.ts'
import {
  FREE_BYTES_MIN,
  FREE_SHARE_MIN,
  IMAGES_BYTES_MAX,
  IMAGES_FILES_MAX,
  RESERVED_BYTES_MAX,
} from './limits.ts'

/** What there is on the disk already, and can give way. */
export interface Stock {
  /** Whether the tenant may have `coming` beside what it has; deletes what it does not use for that. */
  fit(tenant: TenantId, coming: Amount): Promise<boolean>
  /** Frees about `bytes`; false when so much could not be, and then nothing is. */
  giveWay(bytes: number): Promise<boolean>
}

/** Room that nobody else gets. */
export interface Reservation {
  end(): void
}

interface Reserved {
  readonly tenant: TenantId
  readonly need: Amount
  readonly written: () => Amount | Promise<Amount>
}

const GIB = 2 ** 30
/** In whose turn the disk's free space is given out; no tenant has this id. */
const EVERYBODY = ''

/** Free bytes that a file system keeps, of the size statfs(2) tells. */
export const floorOf = ({ blocks, bsize }: { blocks: number; bsize: number }): number =>
  Math.max(FREE_BYTES_MIN, Math.ceil(blocks * bsize * FREE_SHARE_MIN))

const mibOf = (bytes: number): number => Math.ceil(bytes / 2 ** 20)

const storageFull = (bytes: number, options?: ErrorOptions): ImageError =>
  new ImageError(
    'IMAGE_STORAGE_FULL',
    `The image needs ${mibOf(bytes)} MiB on this host's disk, and so much is not free. Try again later or run a smaller image; the operator can free disk space.`,
    options,
  )

const tenantBusy = (): ImageError =>
  new ImageError(
    'IMAGE_BUSY',
    `The tenant's images under way have ${RESERVED_BYTES_MAX / GIB} GiB of disk reserved between them already. Try again when one is done.`,
  )

const tenantFull = ({ bytes, files }: Amount): ImageError =>
  new ImageError(
    'IMAGE_QUOTA_EXCEEDED',
    `The image needs ${mibOf(bytes)} MiB more in ${files} files. With the images that the tenant's pods and launches under way are using, that is over what one tenant may have on this host's disk: ${IMAGES_BYTES_MAX / GIB} GiB in ${IMAGES_FILES_MAX} files. Stop pods or use smaller images.`,
  )

const isFull = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && (error.code === 'ENOSPC' || error.code === 'EDQUOT')

/** The disk was filled by somebody else meanwhile: the same refusal as in advance. */
export const orStorageFull = (error: unknown, bytes: number): unknown =>
  isFull(error) ? storageFull(bytes, { cause: error }) : error

export class Room {
  readonly #directory: string
  readonly #stock: Stock
  readonly #reserved = new Set<Reserved>()
  /** What deletes has the turn of whose files it deletes: of a tenant, or of everybody. */
  readonly #turns = new Turns()

  /** @param directory on the file system in question; made when needed */
  constructor(directory: string, stock: Stock) {
    this.#directory = directory
    this.#stock = stock
  }

  /** Resolves when nothing that began before deletes files of the tenant any more. */
  settled(tenant: TenantId): Promise<void> {
    return this.#turns.run(tenant, () => this.#turns.run(EVERYBODY, () => Promise.resolve()))
  }

  /** Does something with a tenant's files while nothing else deletes any, and none is pulled or built into room. */
  alone<T>(tenant: string, work: () => Promise<T>): Promise<T> {
    return this.#turns.run(tenant, () => this.#turns.run(EVERYBODY, work))
  }

  /**
   * Room for `need` above the floor, from the caches where it is not free.
   * @param written how much of it is on disk by now, and so is free no more: asked until the end, and
   *   whenever room is counted, so that it may become less again
   * @throws ImageError IMAGE_QUOTA_EXCEEDED, IMAGE_STORAGE_FULL, IMAGE_BUSY
   */
  async take(tenant: TenantId, need: Amount, written: Reserved['written']): Promise<Reservation> {
    const reserved = { tenant, need, written }
    // A tenant with many files waits for them by itself.
    if (!isNothing(need)) await this.#turns.run(tenant, () => this.#take(reserved))
    return { end: () => void this.#reserved.delete(reserved) }
  }

  async #take(reserved: Reserved): Promise<void> {
    const { tenant, need } = reserved
    const coming = plus(await this.#toBeWritten((one) => one.tenant === tenant), need)
    if (coming.bytes > RESERVED_BYTES_MAX) throw tenantBusy()
    if (!(await this.#stock.fit(tenant, coming))) throw tenantFull(need)
    await this.#turns.run(EVERYBODY, async () => {
      await this.#makeFree(need.bytes)
      this.#reserved.add(reserved)
    })
  }

  async #makeFree(bytes: number): Promise<void> {
    await mkdir(this.#directory, { recursive: true, mode: 0o700 })
    for (let lacking = await this.#lacking(bytes); lacking > 0; ) {
      // oxlint-disable-next-line no-await-in-loop -- what was freed is measured, not believed
      if (!(await this.#stock.giveWay(lacking))) throw storageFull(bytes)
      // oxlint-disable-next-line no-await-in-loop
      lacking = await this.#lacking(bytes)
    }
  }

  /** What is reserved and not on disk yet. */
  async #toBeWritten(which: (one: Reserved) => boolean = () => true): Promise<Amount> {
    const some = [...this.#reserved].filter(which)
    return totalOf(
      await Promise.all(some.map(async ({ need, written }) => without(need, await written()))),
    )
  }

  async #lacking(bytes: number): Promise<number> {
    // First: what is written while statfs runs then counts twice rather than not at all.
    const reserved = await this.#toBeWritten()
    const found = await statfs(this.#directory)
    return reserved.bytes + bytes + floorOf(found) - found.bavail * found.bsize
  }
}
