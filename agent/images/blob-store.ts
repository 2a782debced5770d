/**
 * Blobs on disk, by tenant and digest: a cache, a launch that misses one pulls again. Nothing is
 * shared between tenants: a blob counts for a tenant only after that tenant's own pull delivered
 * every byte of it. Otherwise naming the digest of somebody's private layer would be enough to have
 * it.
 */
import { randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, rename, rm, stat, unlink } from 'node:fs/promises'
import path from 'node:path'

import type { Digest, TenantId } from '../../policy/index.ts'
import { missingIsNull, touch } from './trim.ts'

export interface BlobWriter {
  /** Appends. */
  write(chunk: Buffer): Promise<void>
  /** Durable and under its name; only after digest and size were checked. */
  commit(): Promise<void>
  /** Forgets it; does nothing after commit. */
  discard(): Promise<void>
}

/** Makes a name in a directory durable. */
export async function syncDirectory(directory: string): Promise<void> {
  const handle = await open(directory, 'r')
  await handle.sync().finally(() => handle.close())
}

export class BlobStore {
  readonly #directory: string

  /** @param directory private to the agent; made when needed */
  constructor(directory: string) {
    this.#directory = directory
  }

  /** Where the tenant's blob is, or would be. */
  placeOf(tenant: TenantId, digest: Digest): string {
    return path.join(this.#directory, tenant, digest.replace(':', '-'))
  }

  /** Whether the tenant has the blob, in this size. The bytes are hashed again before use. */
  async has(tenant: TenantId, digest: Digest, size: number): Promise<boolean> {
    const place = this.placeOf(tenant, digest)
    const status = await stat(place).catch(missingIsNull)
    if (status?.size !== size) return false
    await touch(place)
    return true
  }

  open(tenant: TenantId, digest: Digest): Promise<FileHandle> {
    return open(this.placeOf(tenant, digest), 'r')
  }

  remove(tenant: TenantId, digest: Digest): Promise<void> {
    return rm(this.placeOf(tenant, digest), { force: true })
  }

  async write(tenant: TenantId, digest: Digest): Promise<BlobWriter> {
    const place = this.placeOf(tenant, digest)
    const directory = path.dirname(place)
    await mkdir(directory, { recursive: true, mode: 0o700 })
    const temporary = `${place}.${randomUUID()}.part`
    const handle = await open(temporary, 'wx', 0o600)
    let isOpen = true
    const close = async (): Promise<boolean> => {
      const was = isOpen
      isOpen = false
      if (was) await handle.close()
      return was
    }
    return {
      write: async (chunk) => {
        await handle.writeFile(chunk)
      },
      commit: async () => {
        await handle.sync()
        await close()
        await rename(temporary, place)
        await syncDirectory(directory)
      },
      discard: async () => {
        if (await close()) await unlink(temporary)
      },
    }
  }
}
