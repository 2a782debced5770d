/**
 * What is on disk for all tenants: blobs and root images, who is using which, how much that is for
 * each, and what goes when there is no room: what was used longest ago, and never what is in use.
 * A tenant that has its most gives way by itself; where the disk is full, all tenants do.
 */
import { rm } from 'node:fs/promises'
import path from 'node:path'

import type { TenantId } from '../../policy/index.ts'
import { type Amount, isNothing, NOTHING, plus, totalOf, without } from './amount.ts'
import { BlobStore } from './blob-store.ts'
import { IMAGES_BYTES_MAX, IMAGES_FILES_MAX } from './limits.ts'
import { Room } from './room.ts'
import { RootfsStore } from './rootfs-store.ts'
import { type CachedFile, evictOldest, filesIn, type InUse, namesIn, unusedSince } from './trim.ts'

/** A root image that a pod has open: it takes its bytes until the pod ends, even when it is deleted. */
export interface OpenRootImage {
  readonly tenant: TenantId
  readonly key: string
  readonly bytes: number
}

/** Of the pods of all tenants; an image of several pods may come several times. */
export type OpenRootImages = () => Promise<readonly OpenRootImage[]>

/** What of a tenant's images nobody has used for long. */
export interface UnusedImages extends Amount {
  readonly tenant: string
}

/** Told what was deleted of whose, and why. */
export type OnEvicted = (tenant: string, amount: Amount, reason: 'room' | 'age') => void

/** Whose file it is: each tenant's lie in a folder of its own. */
const tenantOf = ({ place }: CachedFile): string => path.basename(path.dirname(place))

interface Uses {
  readonly isUsed: InUse
  /** What pods have open, by where it was built. */
  readonly open: ReadonlyMap<string, OpenRootImage>
}

const MOST: Amount = { bytes: IMAGES_BYTES_MAX, files: IMAGES_FILES_MAX }

export class Caches {
  readonly blobs: BlobStore
  readonly rootfs: RootfsStore
  readonly room: Room
  readonly #directories: readonly string[]
  readonly #openRootImages: OpenRootImages
  readonly #onEvicted: OnEvicted
  /** How many sessions use a file, by its path. */
  readonly #uses = new Map<string, number>()

  /** @param directory private to the agent; made when needed */
  constructor(directory: string, openRootImages: OpenRootImages, onEvicted: OnEvicted) {
    this.#onEvicted = onEvicted
    this.#directories = ['blobs', 'rootfs'].map((name) => path.join(directory, name))
    const [blobs = '', rootfs = ''] = this.#directories
    this.blobs = new BlobStore(blobs)
    this.rootfs = new RootfsStore(rootfs)
    this.#openRootImages = openRootImages
    this.room = new Room(directory, {
      fit: (tenant, coming) => this.#fit(tenant, coming),
      giveWay: (bytes) => this.#giveWay(bytes),
    })
  }

  /**
   * Keeps these files, which may not be there yet, until the returned function is called. Resolves
   * when nothing that began before can delete them any more: look for them after that.
   */
  async use(tenant: TenantId, places: readonly string[]): Promise<() => void> {
    for (const place of places) this.#uses.set(place, (this.#uses.get(place) ?? 0) + 1)
    await this.room.settled(tenant)
    return () => {
      for (const place of places) {
        const uses = (this.#uses.get(place) ?? 0) - 1
        if (uses > 0) this.#uses.set(place, uses)
        else this.#uses.delete(place)
      }
    }
  }

  async #usesNow(): Promise<Uses> {
    // Before the pods: a session that ends meanwhile may have left its image to one.
    const before = new Set(this.#uses.keys())
    const images = await this.#openRootImages()
    const open = new Map(images.map((one) => [this.rootfs.placeOf(one.tenant, one.key), one]))
    const isUsed = (place: string): boolean => {
      // A root image has its record beside it, and they stay together.
      const file = place.replace(/\.json$/u, '.erofs')
      return before.has(file) || this.#uses.has(file) || open.has(file)
    }
    return { isUsed, open }
  }

  async #filesOf(tenant: string): Promise<readonly CachedFile[]> {
    const folders = this.#directories.map((directory) => path.join(directory, tenant))
    return (await Promise.all(folders.map(filesIn))).flat()
  }

  /** @returns whether `coming` fits beside what the tenant has, where need be without its oldest */
  async #fit(tenant: TenantId, coming: Amount): Promise<boolean> {
    const { isUsed, open } = await this.#usesNow()
    const files = await this.#filesOf(tenant)
    const places = new Set(files.map(({ place }) => place))
    const deleted = [...open]
      .filter(([place, image]) => image.tenant === tenant && !places.has(place))
      .map(([, { bytes }]) => ({ bytes, files: 1 }))
    const held = totalOf([...files.map(({ frees }) => frees), ...deleted])
    const surplus = without(plus(held, coming), MOST)
    return isNothing(surplus) || (await this.#evict(files, surplus, isUsed))
  }

  async #giveWay(bytes: number): Promise<boolean> {
    const { isUsed } = await this.#usesNow()
    const files: (readonly CachedFile[])[] = []
    // oxlint-disable-next-line no-await-in-loop -- a few files at a time, however many tenants
    for (const tenant of await this.#tenants()) files.push(await this.#filesOf(tenant))
    return await this.#evict(files.flat(), { bytes, files: 0 }, isUsed)
  }

  async #evict(files: readonly CachedFile[], need: Amount, isUsed: InUse): Promise<boolean> {
    const gone = new Map<string, Amount>()
    const enough = await evictOldest(files, need, isUsed, (file) => {
      const tenant = tenantOf(file)
      gone.set(tenant, plus(gone.get(tenant) ?? NOTHING, file.frees))
    })
    for (const [tenant, amount] of gone) this.#onEvicted(tenant, amount, 'room')
    return enough
  }

  async #tenants(): Promise<readonly string[]> {
    return [...new Set((await Promise.all(this.#directories.map(namesIn))).flat())]
  }

  /** Deletes what nobody has used for so long, ms, or only says what that is, by tenant. */
  async collect(unusedMs: number, dryRun: boolean): Promise<readonly UnusedImages[]> {
    const found: UnusedImages[] = []
    for (const tenant of await this.#tenants()) {
      // oxlint-disable-next-line no-await-in-loop -- a few files at a time, however many tenants
      const amount = await this.room.alone(tenant, () => this.#collectOf(tenant, unusedMs, dryRun))
      if (!isNothing(amount)) found.push({ tenant, ...amount })
    }
    return found
  }

  async #collectOf(tenant: string, unusedMs: number, dryRun: boolean): Promise<Amount> {
    const { isUsed } = await this.#usesNow()
    const unused = unusedSince(await this.#filesOf(tenant), Date.now() - unusedMs, isUsed)
    const amount = totalOf(unused.map(({ frees }) => frees))
    if (dryRun || isNothing(amount)) return amount
    // oxlint-disable-next-line no-await-in-loop -- the disk is not to be busy with this
    for (const { place } of unused) await rm(place, { force: true })
    this.#onEvicted(tenant, amount, 'age')
    return amount
  }

  /** Deletes all that there is of a tenant, which has no pods and launches nothing. */
  async forget(tenant: TenantId): Promise<void> {
    await this.room.alone(tenant, async () => {
      for (const directory of this.#directories) {
        // oxlint-disable-next-line no-await-in-loop -- two
        await rm(path.join(directory, tenant), { recursive: true, force: true })
      }
    })
  }
}
