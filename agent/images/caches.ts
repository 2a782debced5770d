/**
 * What is on disk for all tenants: blobs and root images, who is using which, and what goes when
 * there is no room: what was used longest ago, whosever it is, and never what is in use.
 */
import path from 'node:path'

import type { TenantId } from '../../policy/index.ts'
import { BlobStore } from './blob-store.ts'
import { BLOBS_CACHED_BYTES_MAX, ROOTFS_CACHED_BYTES_MAX } from './limits.ts'
import { Room } from './room.ts'
import { RootfsStore } from './rootfs-store.ts'
import { evictOldest, trimDirectory } from './trim.ts'

/** Root images that pods have open: deleting one would free nothing until its pod ends. */
export type OpenRootImages = () => Promise<
  readonly { readonly tenant: TenantId; readonly key: string }[]
>

export class Caches {
  readonly blobs: BlobStore
  readonly rootfs: RootfsStore
  readonly room: Room
  readonly #directories: readonly string[]
  /** How many sessions use a file, by its path. */
  readonly #uses = new Map<string, number>()

  /** @param directory private to the agent; made when needed */
  constructor(directory: string, openRootImages: OpenRootImages) {
    this.#directories = ['blobs', 'rootfs'].map((name) => path.join(directory, name))
    const [blobs = '', rootfs = ''] = this.#directories
    this.blobs = new BlobStore(blobs)
    this.rootfs = new RootfsStore(rootfs)
    this.room = new Room(directory, async (bytes) => {
      const open = await openRootImages()
      const places = new Set(open.map(({ tenant, key }) => this.rootfs.placeOf(tenant, key)))
      return evictOldest(this.#directories, bytes, (place) => this.#isUsed(place, places))
    })
  }

  /** A root image has its record beside it, and they stay together. */
  #isUsed(place: string, open: ReadonlySet<string>): boolean {
    const file = place.replace(/\.json$/u, '.erofs')
    return this.#uses.has(file) || open.has(file)
  }

  /**
   * Keeps these files, which may not be there yet, until the returned function is called. Resolves
   * when nothing that began before can delete them any more: look for them after that.
   */
  async use(places: readonly string[]): Promise<() => void> {
    for (const place of places) this.#uses.set(place, (this.#uses.get(place) ?? 0) + 1)
    await this.room.alone(() => Promise.resolve())
    return () => {
      for (const place of places) {
        const uses = (this.#uses.get(place) ?? 0) - 1
        if (uses > 0) this.#uses.set(place, uses)
        else this.#uses.delete(place)
      }
    }
  }

  /** Brings the tenant's caches back to their size. */
  trim(tenant: TenantId): Promise<void> {
    const inUse = (place: string): boolean => this.#isUsed(place, new Set())
    const [blobs = '', rootfs = ''] = this.#directories
    return this.room.alone(async () => {
      await trimDirectory(path.join(blobs, tenant), BLOBS_CACHED_BYTES_MAX, inUse)
      await trimDirectory(path.join(rootfs, tenant), ROOTFS_CACHED_BYTES_MAX, inUse)
    })
  }
}
