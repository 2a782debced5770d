/**
 * Keeps cache directories within their size. What goes first is what was used longest ago: a file's
 * time of modification is when it was written or used (`touch`).
 */
import { readdir, rm, stat, utimes } from 'node:fs/promises'
import path from 'node:path'

/** What an interrupted download or build left over is deleted after a day. */
const PART_MS_MAX = 86_400_000
const BLOCK_BYTES = 512

interface CachedFile {
  readonly place: string
  readonly size: number
  /** Bytes that deleting it frees. */
  readonly allocated: number
  readonly usedMs: number
}

type InUse = (place: string) => boolean

/** Turns "there is no such file" into null. */
export function missingIsNull(error: unknown): null {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
  throw error
}

/** Notes that a file is used now. */
export async function touch(place: string): Promise<void> {
  const now = new Date()
  await utimes(place, now, now).catch(missingIsNull)
}

async function fileAt(place: string): Promise<CachedFile[]> {
  const status = await stat(place).catch(missingIsNull)
  if (status?.isFile() !== true) return []
  const { size, blocks, mtimeMs } = status
  return [{ place, size, allocated: blocks * BLOCK_BYTES, usedMs: mtimeMs }]
}

const namesIn = async (directory: string): Promise<readonly string[]> =>
  (await readdir(directory).catch(missingIsNull)) ?? []

/** The files of a directory, the one used longest ago first. */
async function filesIn(directory: string): Promise<readonly CachedFile[]> {
  const names = await namesIn(directory)
  const found = await Promise.all(names.map((name) => fileAt(path.join(directory, name))))
  return found.flat().toSorted((a, b) => a.usedMs - b.usedMs)
}

/** A file that is being written, or the record of a root image that is. */
const isPart = ({ place }: CachedFile): boolean => /\.part(?:\.json)?$/u.test(place)
const isAbandoned = (file: CachedFile): boolean => file.usedMs < Date.now() - PART_MS_MAX

/**
 * Deletes the files of a directory that were used longest ago, until `bytesMax` are left. What is
 * open elsewhere goes on existing for whoever has it open.
 */
export async function trimDirectory(
  directory: string,
  bytesMax: number,
  inUse: InUse = () => false,
): Promise<void> {
  const files = await filesIn(directory)
  let total = files.reduce((sum, { size }) => sum + size, 0)
  const doomed = files.filter((file) => {
    const goes = isPart(file) ? isAbandoned(file) : total > bytesMax && !inUse(file.place)
    if (goes) total -= file.size
    return goes
  })
  await Promise.all(doomed.map(({ place }) => rm(place, { force: true })))
}

/**
 * Deletes what was used longest ago in the folders of all tenants below `directories`, until about
 * `bytes` are freed. Where all that may go is not enough, nothing goes: a request that is too large
 * for the host must not cost the tenants their caches.
 * @returns whether anything was deleted
 */
export async function evictOldest(
  directories: readonly string[],
  bytes: number,
  inUse: InUse,
): Promise<boolean> {
  const folders = await Promise.all(
    directories.map(async (directory) =>
      (await namesIn(directory)).map((tenant) => path.join(directory, tenant)),
    ),
  )
  const files = (await Promise.all(folders.flat().map(filesIn))).flat()
  const removable = files
    .filter((file) => (isPart(file) ? isAbandoned(file) : !inUse(file.place)))
    .toSorted((a, b) => a.usedMs - b.usedMs)
  if (removable.reduce((sum, { allocated }) => sum + allocated, 0) < bytes) return false
  let freed = 0
  for (const { place, allocated } of removable) {
    if (freed >= bytes) break
    // oxlint-disable-next-line no-await-in-loop -- no more than is needed
    await rm(place, { force: true })
    freed += allocated
  }
  return freed > 0
}
