/** Files that survive a power cut: the orders of write, fsync and rename that make them so. */
import { constants, type PathLike } from 'node:fs'
import { type FileHandle, mkdir, open, rename, rm, unlink } from 'node:fs/promises'
import path from 'node:path'

/** Makes what happened in a directory durable: creations, renames, removals. */
export async function syncDirectory(directory: PathLike): Promise<void> {
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Creates a directory with its parents, each entry durable. */
export async function makeDirectory(directory: string): Promise<void> {
  const first = await mkdir(directory, { recursive: true, mode: 0o755 })
  if (first === undefined) return
  for (let made = directory; ; made = path.dirname(made)) {
    // Parents last is as good as first: nothing counts before the caller goes on.
    // oxlint-disable-next-line no-await-in-loop
    await syncDirectory(path.dirname(made))
    if (made === first) return
  }
}

/**
 * Writes a file so that after a crash there is the old one or the new one, whole.
 *
 * The directory is opened before the change and synced through the same descriptor: a later open
 * could be of an inode that was evicted with its error (Tessera #750).
 */
export async function writeDurable(
  file: string,
  bytes: Uint8Array | string,
  mode = 0o644,
): Promise<void> {
  const directory = path.dirname(file)
  const handle = await open(directory, constants.O_RDONLY | constants.O_DIRECTORY)
  const temporary = `${file}.new`
  try {
    await rm(temporary, { force: true })
    const created = await open(temporary, 'wx', mode)
    try {
      await created.writeFile(bytes)
      await created.sync()
    } finally {
      await created.close()
    }
    await rename(temporary, file)
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/** Removes a file, durably. */
export async function removeDurable(file: string): Promise<void> {
  await unlink(file)
  await syncDirectory(path.dirname(file))
}

const ZEROS = Buffer.alloc(1_048_576)

/**
 * Makes a file of `size` bytes, `start` and then zeros, allocated and durable, and leaves it open
 * for writing.
 */
export async function preallocate(
  file: string,
  size: number,
  start: Buffer = Buffer.alloc(0),
): Promise<FileHandle> {
  const handle = await open(file, 'wx+', 0o600)
  try {
    for (let at = 0; at < size; at += ZEROS.length) {
      // oxlint-disable-next-line no-await-in-loop
      await handle.write(ZEROS, 0, Math.min(ZEROS.length, size - at), at)
    }
    await handle.write(start, 0, start.length, 0)
    await handle.sync()
    await syncDirectory(path.dirname(file))
  } catch (error) {
    await handle.close()
    throw error
  }
  return handle
}

/** Gives an open file another name, durably; closes it when that fails. */
export async function renameOpen(handle: FileHandle, from: string, to: string): Promise<void> {
  try {
    await handle.sync()
    await rename(from, to)
    await syncDirectory(path.dirname(to))
  } catch (error) {
    await handle.close()
    throw error
  }
}
