/**
 * /sys and /proc as text, below one root: `/` for the agent, a directory that a test laid out.
 * Nothing here needs a privilege; what does is in spawn's `describe`.
 */
import { open, readdir, stat } from 'node:fs/promises'
import path from 'node:path'

/** Of a file of /sys, a page at most, and of the first processor in /proc/cpuinfo. */
const TEXT_BYTES = 16_384
/** Of /proc/self/mountinfo and /proc/swaps, which grow with the host. */
export const LONG_TEXT_BYTES = 1_048_576
const ENTRIES_MAX = 4096

const isAbsent = (error: unknown): boolean => {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
  return code === 'ENOENT' || code === 'ENOTDIR'
}

/** null when `read` finds no such file. @throws what else it throws */
async function orNull<T>(read: Promise<T>): Promise<T | null> {
  try {
    return await read
  } catch (error) {
    if (isAbsent(error)) return null
    throw error
  }
}

export class HostRoot {
  readonly #root: string

  /** @param root where `sys`, `proc` and `dev` are */
  constructor(root = '/') {
    this.#root = root
  }

  /**
   * The beginning of a file without blanks around it; null when there is no such file.
   * @throws when it is there and cannot be read: what is not known is not taken for good
   */
  async text(name: string, bytesMax: number = TEXT_BYTES): Promise<string | null> {
    return await orNull(this.#read(name, bytesMax))
  }

  /** Up to `bytesMax`: /proc/cpuinfo of a large host takes milliseconds, its first processor does not. */
  async #read(name: string, bytesMax: number): Promise<string> {
    const file = await open(path.join(this.#root, name))
    try {
      const buffer = Buffer.alloc(bytesMax)
      let length = 0
      while (length < bytesMax) {
        const { bytesRead } = await file.read(buffer, length, bytesMax - length, null)
        if (bytesRead === 0) break
        length += bytesRead
      }
      return buffer.toString('utf8', 0, length).trim()
    } finally {
      await file.close()
    }
  }

  /** Names in a directory, sorted; null when there is none. @throws as text */
  async names(name: string): Promise<readonly string[] | null> {
    const found = await orNull(readdir(path.join(this.#root, name)))
    return found === null ? null : found.toSorted().slice(0, ENTRIES_MAX)
  }

  /** Permission bits; null when there is no such file. @throws as text */
  async mode(name: string): Promise<number | null> {
    const found = await orNull(stat(path.join(this.#root, name)))
    return found === null ? null : found.mode & 0o777
  }
}
