/**
 * Blobs on disk, by tenant and digest. Nothing is shared between tenants: a blob counts for a tenant
 * only after that tenant's own pull delivered every byte of it. Otherwise naming the digest of
 * somebody's private layer would be enough to have it.
 */
import { randomUUID } from 'node:crypto'
import { type FileHandle, mkdir, open, readdir, rename, rm, stat, unlink } from 'node:fs/promises'
import path from 'node:path'

import type { Digest, TenantId } from '../../policy/index.ts'

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

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ENOENT'

export class BlobStore {
  readonly #directory: string

  /** @param directory private to the agent; made when needed */
  constructor(directory: string) {
    this.#directory = directory
  }

  #place(tenant: TenantId, digest: Digest): string {
    return path.join(this.#directory, tenant, digest.replace(':', '-'))
  }

  /** Whether the tenant has the blob, in this size. The bytes are hashed again before use. */
  async has(tenant: TenantId, digest: Digest, size: number): Promise<boolean> {
    try {
      return (await stat(this.#place(tenant, digest))).size === size
    } catch (error) {
      if (isMissing(error)) return false
      throw error
    }
  }

  open(tenant: TenantId, digest: Digest): Promise<FileHandle> {
    return open(this.#place(tenant, digest), 'r')
  }

  remove(tenant: TenantId, digest: Digest): Promise<void> {
    return rm(this.#place(tenant, digest), { force: true })
  }

  async write(tenant: TenantId, digest: Digest): Promise<BlobWriter> {
    const place = this.#place(tenant, digest)
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

  /**
   * Deletes a tenant's oldest blobs until `bytesMax` are left, and what interrupted pulls left over
   * for a day. Blobs are a cache: a launch that misses one pulls again.
   */
  async trim(tenant: TenantId, bytesMax: number): Promise<void> {
    const directory = path.join(this.#directory, tenant)
    const names = await readdir(directory).catch((error: unknown) => {
      if (isMissing(error)) return []
      throw error
    })
    const files = await Promise.all(
      names.map(async (name) => {
        const place = path.join(directory, name)
        const { size, mtimeMs } = await stat(place)
        return { place, size, mtimeMs, part: name.endsWith('.part') }
      }),
    )
    const dayAgo = Date.now() - 86_400_000
    let total = files.reduce((sum, { size }) => sum + size, 0)
    const doomed = files
      .toSorted((a, b) => a.mtimeMs - b.mtimeMs)
      .filter(({ part, size, mtimeMs }) => {
        const goes = part ? mtimeMs < dayAgo : total > bytesMax
        if (goes) total -= size
        return goes
      })
    await Promise.all(doomed.map(({ place }) => rm(place, { force: true })))
  }
}
