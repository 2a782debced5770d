/**
 * Tar archives as entries, strictly. Never touches a file system: names, links and devices are data
 * for the tree (tree.ts), so there is nothing to escape from; they are refused all the same when
 * they try, because an archive that tries is not an image anybody meant to run.
 */
/* oxlint-disable no-await-in-loop -- a stream is read in order */
import { ByteReader } from './byte-reader.ts'
import { invalid, show, tooLarge } from './failure.ts'
import { checkGlobalPax, type PaxRecords, parsePax } from './pax.ts'
import { BLOCK_BYTES, isZero, parseHeader, type TarHeader } from './tar-header.ts'

const EXTENSION_BYTES_MAX = 1 << 20
export const PATH_BYTES_MAX = 4096
export const COMPONENT_BYTES_MAX = 255
export const PATH_DEPTH_MAX = 256
/** UID and GID 2^32-1 means "no change" to the kernel. */
const ID_MAX = 4_294_967_294
/** EROFS holds 64 bits, other file systems the guest may copy to do not: 2106-02-07. */
const MTIME_MAX = 4_294_967_295

export type TarType =
  | 'file'
  | 'directory'
  | 'symlink'
  | 'hardlink'
  | 'character-device'
  | 'block-device'
  | 'fifo'

export interface TarEntry {
  readonly type: TarType
  /** Components from the root, none of them '', '.' or '..'; empty for the root itself. */
  readonly path: readonly string[]
  /** Hard link: components of the target. */
  readonly target: readonly string[]
  /** Symbolic link: what it says, any bytes but NUL. */
  readonly link: string
  /** Permission bits with setuid, setgid and sticky. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: number
  readonly mtimeNanoseconds: number
  readonly deviceMajor: number
  readonly deviceMinor: number
  readonly xattrs: ReadonlyMap<string, Buffer>
}

const TYPES: ReadonlyMap<string, TarType> = new Map([
  ['0', 'file'],
  ['7', 'file'],
  ['1', 'hardlink'],
  ['2', 'symlink'],
  ['3', 'character-device'],
  ['4', 'block-device'],
  ['5', 'directory'],
  ['6', 'fifo'],
])

/**
 * Splits a name of the archive. Relative only, and never upwards (CVE-2021-29136 and the many like
 * it): builders write relative names, and what does not is refused rather than guessed at.
 */
export function splitPath(name: string): string[] {
  if (name === '') throw invalid('an entry has no name')
  if (name.includes('\0')) throw invalid(`the name ${show(name)} holds NUL`)
  if (name.startsWith('/')) throw invalid(`the name ${show(name)} is absolute`)
  if (name.length > PATH_BYTES_MAX) throw invalid(`the name ${show(name)} is too long`)
  const parts = name.split('/').filter((part) => part !== '' && part !== '.')
  if (parts.includes('..')) throw invalid(`the name ${show(name)} leads out of the image`)
  if (parts.length > PATH_DEPTH_MAX) throw invalid(`the name ${show(name)} is too deep`)
  if (parts.some((part) => part.length > COMPONENT_BYTES_MAX)) {
    throw invalid(`a part of the name ${show(name)} is longer than ${COMPONENT_BYTES_MAX} bytes`)
  }
  return parts
}

/** What headers before an entry said about it. */
interface Extensions {
  pax: PaxRecords | null
  name: string | null
  link: string | null
}

function gnuLong(body: Buffer): string {
  const end = body.indexOf(0)
  if (end < 1 || !isZero(body.subarray(end))) throw invalid('a GNU long name is malformed')
  return body.toString('latin1', 0, end)
}

/** Takes an extension header into `extensions`; false when the header is an entry's own. */
function extend(extensions: Extensions, header: TarHeader, body: Buffer): void {
  if (header.type === 'g') return checkGlobalPax(body)
  if (header.type === 'x') {
    if (extensions.pax !== null) throw invalid('two PAX headers for one entry')
    extensions.pax = parsePax(body)
  } else if (header.type === 'L') {
    if (extensions.name !== null) throw invalid('two long names for one entry')
    extensions.name = gnuLong(body)
  } else {
    if (extensions.link !== null) throw invalid('two long link names for one entry')
    extensions.link = gnuLong(body)
  }
}

/** One of the ways to give a name; two ways that both speak are two readings. */
function choose(pax: string | undefined, long: string | null, plain: string): string {
  if (pax !== undefined && long !== null) throw invalid('a name is given both by PAX and by GNU')
  return pax ?? long ?? plain
}

function idOf(value: number, what: string): number {
  if (value > ID_MAX) throw invalid(`${what} is out of range`)
  return value
}

function checkShape(entry: TarEntry, name: string): void {
  if (entry.type === 'file') {
    if (name.endsWith('/')) throw invalid(`${show(name)} is a file with the name of a directory`)
  } else if (entry.size !== 0) throw invalid(`${show(name)} is a ${entry.type} with a body`)
  if (entry.path.length === 0 && entry.type !== 'directory') {
    throw invalid('the root of the image is not a directory')
  }
  if (entry.type === 'symlink' && !/^[^\0]{1,4095}$/su.test(entry.link)) {
    throw invalid(`the symbolic link ${show(name)} has no proper target`)
  }
  if (entry.deviceMajor > 0xfff || entry.deviceMinor > 0xfffff) {
    throw invalid(`the device numbers of ${show(name)} are out of range`)
  }
}

/** What is in numbers: PAX before the header's own. */
const numbersOf = (header: TarHeader, pax: PaxRecords, name: string) =>
  ({
    uid: idOf(pax.uid ?? header.uid, `uid of ${show(name)}`),
    gid: idOf(pax.gid ?? header.gid, `gid of ${show(name)}`),
    size: pax.size ?? header.size,
    mtime: Math.min(pax.mtime?.seconds ?? header.mtime, MTIME_MAX),
    mtimeNanoseconds: pax.mtime?.nanoseconds ?? 0,
  }) satisfies Partial<TarEntry>

const DEVICES: ReadonlySet<TarType> = new Set(['character-device', 'block-device'])

function entryOf(header: TarHeader, extensions: Extensions): TarEntry {
  const pax = extensions.pax ?? {}
  const name = choose(pax.path, extensions.name, header.name)
  const type = TYPES.get(header.type)
  if (type === undefined) throw invalid(`${show(name)} has the unknown type ${show(header.type)}`)
  const link = choose(pax.link, extensions.link, header.link)
  const entry: TarEntry = {
    type,
    path: splitPath(name),
    target: type === 'hardlink' ? splitPath(link) : [],
    link: type === 'symlink' ? link : '',
    mode: header.mode & 0o7777,
    ...numbersOf(header, pax, name),
    deviceMajor: DEVICES.has(type) ? header.deviceMajor : 0,
    deviceMinor: DEVICES.has(type) ? header.deviceMinor : 0,
    xattrs: pax.xattrs ?? new Map(),
  }
  checkShape(entry, name)
  return entry
}

const padding = (size: number): number => (BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES

/** The next header, or null at the end: two zero blocks, then nothing but zeros. */
async function nextHeader(reader: ByteReader): Promise<TarHeader | null> {
  const block = await reader.readOrEnd(BLOCK_BYTES)
  if (block === null) throw invalid('the archive ends without its end mark')
  if (!isZero(block)) return parseHeader(block)
  if (!isZero(await reader.read(BLOCK_BYTES))) throw invalid('a single zero block in the archive')
  // Readers differ in whether they look behind the end mark, so nothing may be there.
  await reader.drain((chunk) => {
    if (!isZero(chunk)) throw invalid('data after the end of the archive')
  })
  return null
}

/** Takes the body of a file, chunk by chunk, in order. A chunk is valid only during the call. */
export type TakeBody = (chunk: Buffer) => void

/**
 * Reads a whole archive. `visit` is called for every entry, in order, and may return a function
 * that takes the file's body.
 * @throws RootfsFailure
 */
export async function readTar(
  source: AsyncIterable<Buffer>,
  visit: (entry: TarEntry) => TakeBody | null,
): Promise<void> {
  const reader = new ByteReader(source)
  let extensions: Extensions = { pax: null, name: null, link: null }
  for (;;) {
    const header = await nextHeader(reader)
    if (header === null) break
    if (['x', 'g', 'L', 'K'].includes(header.type)) {
      if (header.size > EXTENSION_BYTES_MAX) throw tooLarge('an extended tar header is over 1 MiB')
      const body = Buffer.from(await reader.read(header.size))
      await reader.read(padding(header.size))
      extend(extensions, header, body)
      continue
    }
    const entry = entryOf(header, extensions)
    extensions = { pax: null, name: null, link: null }
    await reader.pass(entry.size, visit(entry) ?? (() => undefined))
    await reader.read(padding(entry.size))
  }
  if (extensions.pax !== null || extensions.name !== null || extensions.link !== null) {
    throw invalid('an extended tar header without its entry')
  }
}
