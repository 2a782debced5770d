/**
 * What lies in cache directories, and deleting from them. What goes first is what was used longest
 * ago: a file's time of modification is when it was written or used (`touch`).
 */
import { readdir, rm, stat, utimes } from 'node:fs/promises'
import path from 'node:path'
import { type Amount, isNothing, totalOf, without } from './amount.ts'

/** What an interrupted download or build left over; longer than either may take, its checks included. */
const PART_MS_MAX = 3_600_000
const BLOCK_BYTES = 512
/** Looked at together. All files of a directory at once would hold up the event loop, and everybody. */
const LANES = 8

export interface CachedFile {
  readonly place: string
  /** What deleting it frees. */
  readonly frees: Amount
  readonly usedMs: number
}

export type InUse = (place: string) => boolean

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

/** Bytes that a file has on the disk, of what stat(2) says. */
export const allocatedOf = ({ blocks }: { readonly blocks: number }): number => blocks * BLOCK_BYTES

async function fileAt(place: string): Promise<CachedFile[]> {
  const status = await stat(place).catch(missingIsNull)
  if (status?.isFile() !== true) return []
  return [{ place, frees: { bytes: allocatedOf(status), files: 1 }, usedMs: status.mtimeMs }]
}

/** Of a directory; none where there is none. */
export const namesIn = async (directory: string): Promise<readonly string[]> =>
  (await readdir(directory).catch(missingIsNull)) ?? []

/** The files of a directory, in no order. */
export async function filesIn(directory: string): Promise<readonly CachedFile[]> {
  const names = (await namesIn(directory)).values()
  const found: CachedFile[] = []
  const lane = async (): Promise<void> => {
    // oxlint-disable-next-line no-await-in-loop -- the lanes share the names
    for (const name of names) found.push(...(await fileAt(path.join(directory, name))))
  }
  await Promise.all(Array.from({ length: LANES }, lane))
  return found
}

/** A file that is being written, or the record of a root image that is. */
const isPart = ({ place }: CachedFile): boolean => /\.part(?:\.json)?$/u.test(place)
const isAbandoned = (file: CachedFile): boolean => file.usedMs < Date.now() - PART_MS_MAX
const mayGo = (file: CachedFile, inUse: InUse): boolean =>
  isPart(file) ? isAbandoned(file) : !inUse(file.place)

/** Of `files`, those that nobody has used since `untilMs`, ms since 1970. */
export const unusedSince = (
  files: readonly CachedFile[],
  untilMs: number,
  inUse: InUse,
): readonly CachedFile[] => files.filter((file) => file.usedMs <= untilMs && mayGo(file, inUse))

/**
 * Deletes of `files` what was used longest ago, until about `need` is freed. Where all that may go is
 * not enough, nothing goes: a request that is too large must not cost anybody a cache.
 * @param gone is told of each that was deleted
 * @returns whether it was enough
 */
export async function evictOldest(
  files: readonly CachedFile[],
  need: Amount,
  inUse: InUse,
  gone: (file: CachedFile) => void = () => undefined,
): Promise<boolean> {
  const removable = files
    .filter((file) => mayGo(file, inUse))
    .toSorted((a, b) => a.usedMs - b.usedMs)
  if (!isNothing(without(need, totalOf(removable.map(({ frees }) => frees))))) return false
  let left = need
  for (const file of removable) {
    if (isNothing(left)) break
    // oxlint-disable-next-line no-await-in-loop -- no more than is needed
    await rm(file.place, { force: true })
    gone(file)
    left = without(left, file.frees)
  }
  return true
}
