/** Keeps a cache directory within its size. */
import { readdir, rm, stat } from 'node:fs/promises'
import path from 'node:path'

/** What an interrupted download or build left over is deleted after a day. */
const PART_MS_MAX = 86_400_000

/** Turns "there is no such file" into null. */
export function missingIsNull(error: unknown): null {
  if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return null
  throw error
}

/**
 * Deletes the files of a directory that were written longest ago, until `bytesMax` are left. What is
 * open elsewhere goes on existing for whoever has it open.
 */
export async function trimDirectory(directory: string, bytesMax: number): Promise<void> {
  const names = (await readdir(directory).catch(missingIsNull)) ?? []
  const found = await Promise.all(
    names.map(async (name) => {
      const place = path.join(directory, name)
      const status = await stat(place).catch(missingIsNull)
      return status === null ? [] : [{ place, size: status.size, mtimeMs: status.mtimeMs }]
    }),
  )
  const files = found.flat().toSorted((a, b) => a.mtimeMs - b.mtimeMs)
  const partsBefore = Date.now() - PART_MS_MAX
  let total = files.reduce((sum, { size }) => sum + size, 0)
  const doomed = files.filter(({ place, size, mtimeMs }) => {
    const goes = place.endsWith('.part') ? mtimeMs < partsBefore : total > bytesMax
    if (goes) total -= size
    return goes
  })
  await Promise.all(doomed.map(({ place }) => rm(place, { force: true })))
}
