/**
 * Names in an open directory of this machine, without the way to it: what is on that way can be changed by others while
 * a copy runs. The kernel's own link to the descriptor is what Node has in place of openat(2).
 */
import { constants, openSync } from 'node:fs'

const { O_DIRECTORY, O_NOFOLLOW, O_NONBLOCK, O_RDONLY } = constants

/** The path of `name` in an open directory. */
export const within = (directory: number, name: Buffer): Buffer =>
  Buffer.concat([Buffer.from(`/proc/self/fd/${directory}/`), name])

/** A directory by a name of people's, links in it followed. */
export const openNamed = (path: string): number => openSync(path, O_RDONLY | O_DIRECTORY)

/** One in an open one, and no link to one. */
export const openDirectory = (directory: number, name: Buffer): number =>
  openSync(within(directory, name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW)

/** A file to read, and no link; of a FIFO it would be nobody's turn. */
export const openFile = (directory: number, name: Buffer): number =>
  openSync(within(directory, name), O_RDONLY | O_NOFOLLOW | O_NONBLOCK)

/** The code of an error of the system; else its own words. */
export const codeOf = (error: unknown): string => {
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
  return typeof code === 'string' ? code : String(error)
}
