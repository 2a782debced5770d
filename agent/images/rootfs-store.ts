/**
 * Finished root images, by tenant and key: a cache too. A pod that runs has its image open and keeps
 * it. As with blobs, nothing is shared between tenants: the key is made of digests, and knowing those
 * must not be enough to get the bytes.
 */
import { randomUUID } from 'node:crypto'
import {
  type FileHandle,
  mkdir,
  open,
  readFile,
  rename,
  rm,
  stat,
  writeFile,
} from 'node:fs/promises'
import path from 'node:path'

import {
  type Canonical,
  canonicalJson,
  NotCanonical,
  parseCanonical,
} from '../../policy/canonical.ts'
import type { TenantId } from '../../policy/index.ts'
import { syncDirectory } from './blob-store.ts'
import { allocatedOf, missingIsNull, touch } from './trim.ts'

/** A root image on disk: EROFS and its Merkle tree behind it (docs/formats.md section 2). */
export interface Rootfs {
  readonly path: string
  /** Bytes of file system and tree. */
  readonly size: number
  readonly verity: { readonly data_blocks: number; readonly root: string; readonly salt: string }
  /** Names builder, options and layers; 64 hex digits. */
  readonly rootfsKey: string
  /** Inodes. */
  readonly entries: number
}

const RECORD_BYTES_MAX = 4096
const hex = /^[0-9a-f]{64}$/u

function recordOf(rootfs: Rootfs): Canonical {
  const { data_blocks, root, salt } = rootfs.verity
  return {
    data_blocks,
    entries: rootfs.entries,
    key: rootfs.rootfsKey,
    root,
    salt,
    size: rootfs.size,
  }
}

const isRecord = (value: Canonical): value is { readonly [name: string]: Canonical } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isCount = (value: unknown): value is number => Number.isSafeInteger(value)
const isHex = (value: unknown): value is string => typeof value === 'string' && hex.test(value)

function parseRecord(bytes: Uint8Array, place: string, key: string): Rootfs | null {
  let value: Canonical
  try {
    value = parseCanonical(bytes, RECORD_BYTES_MAX)
  } catch (error) {
    if (error instanceof NotCanonical) return null
    throw error
  }
  if (!isRecord(value)) return null
  const { data_blocks, entries, root, salt, size } = value
  if (!isCount(data_blocks) || !isCount(entries) || !isCount(size)) return null
  if (!isHex(root) || !isHex(salt)) return null
  return { path: place, size, verity: { data_blocks, root, salt }, rootfsKey: key, entries }
}

export class RootfsStore {
  readonly #directory: string

  /** @param directory private to the agent; made when needed */
  constructor(directory: string) {
    this.#directory = directory
  }

  #place(tenant: TenantId, key: string): string {
    return path.join(this.#directory, tenant, key)
  }

  /** The image, if it was finished: the record is written last, and must fit the file. */
  async find(tenant: TenantId, key: string): Promise<Rootfs | null> {
    const place = this.#place(tenant, key)
    const bytes = await readFile(`${place}.json`).catch(missingIsNull)
    const rootfs = bytes === null ? null : parseRecord(bytes, `${place}.erofs`, key)
    if (rootfs === null) return null
    const found = await stat(rootfs.path).catch(missingIsNull)
    if (found?.size !== rootfs.size) return null
    await Promise.all([touch(rootfs.path), touch(`${place}.json`)])
    return rootfs
  }

  /** Where the image itself is, or would be. */
  placeOf(tenant: TenantId, key: string): string {
    return `${this.#place(tenant, key)}.erofs`
  }

  /** An empty file for a build, and how to end it. */
  async begin(tenant: TenantId, key: string): Promise<RootfsDraft> {
    const place = this.#place(tenant, key)
    await mkdir(path.dirname(place), { recursive: true, mode: 0o700 })
    const temporary = `${place}.${randomUUID()}.part`
    const handle = await open(temporary, 'wx+', 0o600)
    return {
      handle,
      allocated: async () => allocatedOf(await handle.stat()),
      keep: async (built) => {
        const rootfs: Rootfs = { ...built, rootfsKey: key, path: `${place}.erofs` }
        await handle.sync()
        await rename(temporary, rootfs.path)
        await writeFile(`${temporary}.json`, canonicalJson(recordOf(rootfs)), {
          mode: 0o600,
          flush: true,
        })
        await rename(`${temporary}.json`, `${place}.json`)
        await syncDirectory(path.dirname(place))
        return rootfs
      },
      end: async () => {
        await handle.close()
        await rm(temporary, { force: true })
      },
    }
  }
}

export interface RootfsDraft {
  readonly handle: FileHandle
  /** Bytes that it has on the disk by now. */
  allocated(): Promise<number>
  /** Durable and under its name. */
  keep(built: Pick<Rootfs, 'size' | 'verity' | 'entries'>): Promise<Rootfs>
  /** Closes it, and deletes it unless it was kept. */
  end(): Promise<void>
}
