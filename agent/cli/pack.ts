/**
 * A file or a directory of this machine as a tar archive, read as it is sent. Links below what was named are archived as
 * links; none is followed, also where one takes a directory's place meanwhile.
 */
import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  type Stats,
} from 'node:fs'
import { show } from '../../native/workers/rootfs/failure.ts'
import { UsageError } from './arguments.ts'
import { codeOf, openDirectory, openFile, within } from './local-tree.ts'
import { fillingOf, headerOf, TAR_END, type TarWrite } from './tar-write.ts'

const { O_NONBLOCK, O_RDONLY } = constants
const CHUNK_BYTES = 65_536
/** Directories within each other; each holds a descriptor. */
const DEPTH_MAX = 256
const NOTHING: Buffer = Buffer.alloc(0)

/** What could not be packed was said; the rest was sent. */
export interface Packing {
  readonly isWhole: () => boolean
  readonly archive: AsyncIterable<Buffer>
}

const entryOf = (type: TarWrite['type'], name: Buffer, stats: Stats, link = NOTHING): TarWrite => ({
  type,
  name,
  link,
  mode: stats.mode & 0o777,
  size: type === 'file' ? stats.size : 0,
  mtime: stats.mtimeMs / 1000,
})

/** How many bytes, or why none. */
function readChunk(fd: number, chunk: Buffer): number | string {
  try {
    return readSync(fd, chunk)
  } catch (error) {
    return codeOf(error)
  }
}

class Packer {
  isWhole = true
  readonly #say: (line: string) => void

  constructor(say: (line: string) => void) {
    this.#say = say
  }

  #leaveOut(name: Buffer, why: string): void {
    this.isWhole = false
    this.#say(`left out: ${show(name.toString('latin1'))}: ${why}`)
  }

  /** Owns the descriptor. As long as the file was when it was looked at. */
  *file(fd: number, name: Buffer): Generator<Buffer> {
    try {
      const stats = fstatSync(fd)
      yield headerOf(entryOf('file', name, stats))
      let why: string | null = null
      for (let left = stats.size; left > 0; ) {
        const chunk = Buffer.alloc(Math.min(left, CHUNK_BYTES))
        const read: number | string = why === null ? readChunk(fd, chunk) : 0
        // The header is out: what is missing is zeros.
        if (typeof read === 'string' || read === 0) why ??= read === 0 ? 'it is shorter now' : read
        const bytes = typeof read === 'string' || read === 0 ? chunk : chunk.subarray(0, read)
        left -= bytes.length
        yield bytes
      }
      if (why !== null) this.#leaveOut(name, `a part of it: ${why}`)
      yield fillingOf(stats.size)
    } finally {
      closeSync(fd)
    }
  }

  /** Owns the descriptor. */
  *directory(fd: number, name: Buffer, depth: number): Generator<Buffer> {
    try {
      yield headerOf(entryOf('directory', name, fstatSync(fd)))
      const found = readdirSync(`/proc/self/fd/${fd}/`, { encoding: 'buffer' })
      for (const own of found) {
        const full = Buffer.concat([name, Buffer.from('/'), own])
        yield* this.#within(fd, own, full, depth)
      }
    } finally {
      closeSync(fd)
    }
  }

  *#within(directory: number, own: Buffer, name: Buffer, depth: number): Generator<Buffer> {
    try {
      const stats = lstatSync(within(directory, own))
      if (stats.isSymbolicLink()) {
        const link = readlinkSync(within(directory, own), { encoding: 'buffer' })
        yield headerOf(entryOf('symlink', name, stats, link))
      } else if (stats.isDirectory() && depth < DEPTH_MAX) {
        yield* this.directory(openDirectory(directory, own), name, depth + 1)
      } else if (stats.isFile()) {
        yield* this.file(openFile(directory, own), name)
      } else if (stats.isDirectory()) this.#leaveOut(name, 'it is too deep')
      else this.#say(`left out: ${show(name.toString('latin1'))}: no file, directory or link`)
    } catch (error) {
      this.#leaveOut(name, codeOf(error))
    }
  }
}

/**
 * @param path links in it are followed
 * @param name what the archive calls it
 * @throws UsageError, or what opening it answers
 */
export function pack(path: string, name: Buffer, say: (line: string) => void): Packing {
  const packer = new Packer(say)
  const fd = openSync(path, O_RDONLY | O_NONBLOCK)
  const stats = fstatSync(fd)
  if (!stats.isFile() && !stats.isDirectory()) {
    closeSync(fd)
    throw new UsageError(`${path} is neither a file nor a directory`)
  }
  const isDirectory = stats.isDirectory()
  async function* archive(): AsyncGenerator<Buffer> {
    yield* isDirectory ? packer.directory(fd, name, 0) : packer.file(fd, name)
    yield TAR_END
  }
  return { isWhole: () => packer.isWhole, archive: archive() }
}
