/**
 * PAX extended headers (POSIX.1-2001 pax, "pax Extended Header"): records `length key=value\n`.
 * A record that is not exactly that is refused, not skipped: readers that skip it see another file.
 */
import { invalid, show } from './failure.ts'

/** What an extended header says about the entry after it. */
export interface PaxRecords {
  path?: string
  link?: string
  size?: number
  uid?: number
  gid?: number
  mtime?: { readonly seconds: number; readonly nanoseconds: number }
  /** Extended attributes by full name (`user.x`), one character a byte; values are bytes. */
  xattrs?: Map<string, Buffer>
}

/** UTF-8 and raw bytes: names are bytes here, so both read the same. */
const CHARSETS = new Set(['BINARY', 'ISO-IR 10646 2000 UTF-8'])
const XATTR_PREFIX = 'SCHILY.xattr.'

function* records(body: Buffer): Generator<readonly [string, Buffer]> {
  let at = 0
  while (at < body.length) {
    const found = /^([1-9][0-9]{0,6}) /u.exec(body.toString('latin1', at, at + 9))
    if (found === null) throw invalid('a PAX record does not begin with its length')
    const end = at + Number(found[1])
    if (end > body.length || body[end - 1] !== 0x0a) {
      throw invalid('a PAX record does not end where its length says')
    }
    const start = at + found[0].length
    const equals = body.indexOf(0x3d, start)
    if (equals <= start || equals >= end) throw invalid('a PAX record has no key')
    const key = body.toString('latin1', start, equals)
    if (key.includes('\0')) throw invalid('the key of a PAX record holds NUL')
    yield [key, Buffer.from(body.subarray(equals + 1, end - 1))]
    at = end
  }
}

function textOf(key: string, value: Buffer): string {
  const text = value.toString('latin1')
  if (text === '' || text.includes('\0')) throw invalid(`PAX ${key} is empty or holds NUL`)
  return text
}

function naturalOf(key: string, value: Buffer): number {
  const text = value.toString('latin1')
  const natural = Number(text)
  if (!/^[0-9]{1,16}$/u.test(text) || !Number.isSafeInteger(natural)) {
    throw invalid(`PAX ${key} is not a number in range`)
  }
  return natural
}

/** Seconds with an optional fraction; before 1970 reads as 1970. */
function timeOf(key: string, value: Buffer): { seconds: number; nanoseconds: number } {
  const found = /^(-?)([0-9]{1,15})(?:\.([0-9]{0,30}))?$/u.exec(value.toString('latin1'))
  if (found === null) throw invalid(`PAX ${key} is not a time`)
  if (found[1] === '-') return { seconds: 0, nanoseconds: 0 }
  return {
    seconds: Number(found[2]),
    nanoseconds: Number((found[3] ?? '').slice(0, 9).padEnd(9, '0')),
  }
}

type Apply = (into: PaxRecords, key: string, value: Buffer) => void
const known = new Map<string, Apply>([
  ['path', (into, key, value) => (into.path = textOf(key, value))],
  ['linkpath', (into, key, value) => (into.link = textOf(key, value))],
  ['size', (into, key, value) => (into.size = naturalOf(key, value))],
  ['uid', (into, key, value) => (into.uid = naturalOf(key, value))],
  ['gid', (into, key, value) => (into.gid = naturalOf(key, value))],
  ['mtime', (into, key, value) => (into.mtime = timeOf(key, value))],
])

/** Records of an `x` header. Keys that change nothing here (atime, comment, uname) are passed over. */
export function parsePax(body: Buffer): PaxRecords {
  const into: PaxRecords = {}
  const seen = new Set<string>()
  for (const [key, value] of records(body)) {
    if (seen.has(key)) throw invalid(`PAX ${show(key)} comes twice`)
    seen.add(key)
    if (key.startsWith('GNU.sparse.')) throw invalid('sparse files are not supported')
    if (key === 'hdrcharset' && !CHARSETS.has(value.toString('latin1'))) {
      throw invalid('this PAX hdrcharset is not supported')
    }
    if (key.startsWith(XATTR_PREFIX)) {
      into.xattrs ??= new Map()
      into.xattrs.set(key.slice(XATTR_PREFIX.length), value)
    } else known.get(key)?.(into, key, value)
  }
  return into
}

/**
 * A `g` header speaks of all later entries. Only a comment is harmless; readers disagree about
 * whether and how the rest applies.
 */
export function checkGlobalPax(body: Buffer): void {
  for (const [key] of records(body)) {
    if (key !== 'comment') throw invalid(`global PAX ${show(key)} is not supported`)
  }
}
