/**
 * An archive that a pod sent becomes files here. The pod is a stranger: nothing is written outside of the target, nothing
 * through a link, no device, no hard link, no set-user-id bit, and no more than was asked for.
 */
import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  futimesSync,
  mkdirSync,
  openSync,
  symlinkSync,
  unlinkSync,
  writeSync,
} from 'node:fs'
import { RootfsFailure, show } from '../../native/workers/rootfs/failure.ts'
import { readTar, type TakeBody, type TarEntry } from '../../native/workers/rootfs/tar.ts'
import { codeOf, openDirectory, within } from './local-tree.ts'

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants
/** Files, directories and links of one copy. */
const ENTRIES_MAX = 1_000_000
/** Bytes of an archive beside the files: for each thing, its header and long names; and the end. */
const HEADERS_BYTES_MAX = 16_384
const END_BYTES_MAX = 1 << 20

/** Where an archive goes. */
export interface Target {
  /** An open directory. */
  readonly root: number
  /** What the archive calls the one thing it has; null: it has what is in a directory. */
  readonly first: Buffer | null
  /** What that is to be called; as it is if null. */
  readonly rename: Buffer | null
  /** Bytes of all files. */
  readonly bytesMax: number
}

/** The copy ended before its end; what was written before stays. */
export class UnpackError extends Error {
  override readonly name = 'UnpackError'
}

/**
 * Whether a link in a directory `depth` below the top stays below the top, whatever other links there are: it goes up
 * first, no further than to the top, and then only down. By induction each link that was made leads to a place within.
 */
export function staysWithin(target: string, depth: number): boolean {
  if (target.startsWith('/')) return false
  const parts = target.split('/').filter((part) => part !== '' && part !== '.')
  const up = parts.findIndex((part) => part !== '..')
  const ups = up === -1 ? parts.length : up
  return ups <= depth && !parts.slice(ups).includes('..')
}

interface Level {
  readonly name: Buffer
  readonly directory: number
  /** Of one that was made here. */
  readonly entry: TarEntry | null
}

const bytesOf = (name: string): Buffer => Buffer.from(name, 'latin1')
const kept = (mode: number): number => mode & 0o777

class Unpacking {
  /** Of links that were left out. */
  isWhole = true
  readonly #target: Target
  readonly #say: (line: string) => void
  #levels: Level[] = []
  #file: { readonly fd: number; readonly mtime: number } | null = null
  #bytes = 0
  #entries = 0
  #read = 0

  constructor(target: Target, say: (line: string) => void) {
    this.#target = target
    this.#say = say
  }

  /** The archive, as long as it is no longer than what it has: zeros behind its end could go on for ever. */
  async *bounded(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    for await (const chunk of source) {
      yield chunk
      this.#read += chunk.length
      const most = this.#bytes + this.#entries * HEADERS_BYTES_MAX + END_BYTES_MAX
      if (this.#read > most) throw new UnpackError('the archive goes on behind all that it has')
    }
  }

  /** @throws UnpackError */
  visit(entry: TarEntry): TakeBody | null {
    try {
      return this.#visit(entry)
    } catch (cause) {
      if (cause instanceof UnpackError) throw cause
      const what = show(entry.path.join('/'))
      throw new UnpackError(`cannot write ${what}: ${codeOf(cause)}`, { cause })
    }
  }

  #visit(entry: TarEntry): TakeBody | null {
    this.#closeFile()
    this.#count(entry)
    const parts = this.#partsOf(entry)
    const name = parts.at(-1)
    // The target itself, which is left as it is.
    if (name === undefined) return null
    this.#enter(parts.slice(0, -1))
    if (entry.type === 'directory') this.#push(name, entry)
    else if (entry.type === 'symlink') this.#link(entry, name, parts.length)
    else if (entry.type === 'file') return this.#fileOf(entry, name)
    else throw new UnpackError(`the archive has a ${entry.type}, which no pod sends`)
    return null
  }

  #count({ type, size }: TarEntry): void {
    this.#entries += 1
    if (type === 'file') this.#bytes += size
    if (this.#entries > ENTRIES_MAX) {
      throw new UnpackError(`the archive has more than ${ENTRIES_MAX} files`)
    }
    if (this.#bytes > this.#target.bytesMax) {
      const most = this.#target.bytesMax
      throw new UnpackError(`the files have more than ${most} bytes: --max-size allows more`)
    }
  }

  #partsOf({ path }: TarEntry): Buffer[] {
    const parts = path.map(bytesOf)
    const { first, rename } = this.#target
    if (first === null) return parts
    if (parts[0] === undefined || !parts[0].equals(first)) {
      throw new UnpackError(`the archive has ${show(path.join('/'))}, which was not asked for`)
    }
    return rename === null ? parts : [rename, ...parts.slice(1)]
  }

  get #here(): number {
    return this.#levels.at(-1)?.directory ?? this.#target.root
  }

  #enter(parts: readonly Buffer[]): void {
    const common = this.#levels.findIndex(
      ({ name }, at) => parts[at] === undefined || !name.equals(parts[at]),
    )
    this.#leaveTo(common === -1 ? this.#levels.length : common)
    for (const part of parts.slice(this.#levels.length)) this.#push(part, null)
  }

  #push(name: Buffer, entry: TarEntry | null): void {
    let isNew = true
    try {
      // What is in it has to be written first.
      mkdirSync(within(this.#here, name), kept(entry?.mode ?? 0o755) | 0o700)
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
      isNew = false
    }
    const directory = openDirectory(this.#here, name)
    this.#levels.push({ name, directory, entry: isNew ? entry : null })
  }

  #leaveTo(depth: number): void {
    while (this.#levels.length > depth) {
      const { directory, entry } = this.#levels.pop() ?? { directory: -1, entry: null }
      if (entry !== null) {
        const { mode } = fstatSync(directory)
        fchmodSync(directory, kept(mode) & (kept(entry.mode) | 0o077))
        futimesSync(directory, entry.mtime, entry.mtime)
      }
      closeSync(directory)
    }
  }

  #link({ link, path }: TarEntry, name: Buffer, depth: number): void {
    const above = this.#target.first === null ? 1 : 2
    if (!staysWithin(link, depth - above)) {
      this.isWhole = false
      this.#say(`left out: ${show(path.join('/'))} is a link to ${show(link)}, out of the copy`)
      return
    }
    const place = within(this.#here, name)
    this.#anew(place, () => symlinkSync(bytesOf(link), place))
  }

  /** Makes something where there may be something: that is removed, and never written to. A directory stays. */
  #anew<T>(place: Buffer, make: () => T): T {
    try {
      return make()
    } catch (error) {
      if (codeOf(error) !== 'EEXIST') throw error
      unlinkSync(place)
      return make()
    }
  }

  #fileOf({ mode, mtime }: TarEntry, name: Buffer): TakeBody {
    const place = within(this.#here, name)
    const flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW
    const fd = this.#anew(place, () => openSync(place, flags, kept(mode)))
    this.#file = { fd, mtime }
    return (chunk) => {
      for (let at = 0; at < chunk.length; ) at += writeSync(fd, chunk, at)
    }
  }

  #closeFile(): void {
    if (this.#file === null) return
    const { fd, mtime } = this.#file
    this.#file = null
    futimesSync(fd, mtime, mtime)
    closeSync(fd)
  }

  finish(): void {
    this.#closeFile()
    this.#leaveTo(0)
  }
}

/**
 * Resolves with whether all of it is there; what was left out is said.
 * @throws UnpackError
 */
export async function unpack(
  source: AsyncIterable<Buffer>,
  target: Target,
  say: (line: string) => void,
): Promise<boolean> {
  const unpacking = new Unpacking(target, say)
  try {
    await readTar(unpacking.bounded(source), (entry) => unpacking.visit(entry))
  } catch (cause) {
    if (cause instanceof UnpackError) throw cause
    const why = cause instanceof RootfsFailure ? cause.message : codeOf(cause)
    throw new UnpackError(`the copy cannot be written: ${why}`, { cause })
  } finally {
    unpacking.finish()
  }
  return unpacking.isWhole
}
