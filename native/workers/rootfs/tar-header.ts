/**
 * One 512-byte tar header, read strictly: POSIX.1-1988 ustar, GNU and the old format before both.
 *
 * Where readers of tar differ, an archive can show one tree to a scanner and another to the machine
 * (CVE-2025-62518). So whatever two well-known readers read differently is refused here.
 */
import { invalid, show } from './failure.ts'

export const BLOCK_BYTES = 512

export type TarFormat = 'ustar' | 'gnu' | 'old'

/** The fields of a header as they stand in it; long names and PAX records come on top. */
export interface TarHeader {
  readonly format: TarFormat
  /** One character a byte (latin1): tar names are bytes, in no particular encoding. */
  readonly name: string
  readonly link: string
  /** The type flag as a character; NUL is returned as '0'. */
  readonly type: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Bytes of body, before padding. */
  readonly size: number
  /** Seconds since 1970; negative times read as 0. */
  readonly mtime: number
  readonly deviceMajor: number
  readonly deviceMinor: number
}

/** Text up to the first NUL. */
function text(block: Buffer, start: number, length: number): string {
  const field = block.toString('latin1', start, start + length)
  const end = field.indexOf('\0')
  return end === -1 ? field : field.slice(0, end)
}

/**
 * GNU's binary numbers: first byte 0x80 (positive) or 0xff (negative), the rest big endian.
 * @throws RootfsFailure beyond 2^53-1
 */
function binaryNumber(field: Buffer, what: string): number {
  if (field[0] === 0xff) return -1
  let value = BigInt((field[0] ?? 0) & 0x7f)
  for (const byte of field.subarray(1)) value = value * 256n + BigInt(byte)
  if (value > BigInt(Number.MAX_SAFE_INTEGER)) throw invalid(`${what} is out of range`)
  return Number(value)
}

/** A numeric field: octal digits ended by NUL or blank, or GNU binary. Negative is -1. */
function number(block: Buffer, start: number, length: number, what: string): number {
  const field = block.subarray(start, start + length)
  if (((field[0] ?? 0) & 0x80) !== 0) return binaryNumber(field, what)
  const found = /^ *([0-7]*)[\0 ]*$/u.exec(field.toString('latin1'))
  if (found === null) throw invalid(`${what} is not a number`)
  const digits = found[1] ?? ''
  return digits === '' ? 0 : Number.parseInt(digits, 8)
}

function natural(block: Buffer, start: number, length: number, what: string): number {
  const value = number(block, start, length, what)
  if (value < 0) throw invalid(`${what} is negative`)
  return value
}

function formatOf(block: Buffer): TarFormat {
  const magic = block.toString('latin1', 257, 265)
  if (magic === 'ustar\x0000') return 'ustar'
  if (magic === 'ustar  \0') return 'gnu'
  if (magic === '\0'.repeat(8)) return 'old'
  throw invalid('a header is neither ustar nor GNU tar')
}

/** The checksum is the sum of all bytes, its own eight counted as blanks. */
function checkSum(block: Buffer): void {
  let sum = 8 * 0x20
  for (let at = 0; at < BLOCK_BYTES; at += 1) {
    if (at < 148 || at >= 156) sum += block[at] ?? 0
  }
  if (sum !== number(block, 148, 8, 'the checksum of a header')) {
    throw invalid('the checksum of a header does not match')
  }
}

/** Whether a block holds only zeros: two of them end an archive. */
export const isZero = (bytes: Buffer): boolean => {
  for (const byte of bytes) if (byte !== 0) return false
  return true
}

/** @throws RootfsFailure */
export function parseHeader(block: Buffer): TarHeader {
  checkSum(block)
  const format = formatOf(block)
  const name = text(block, 0, 100)
  // GNU keeps other things where ustar has the prefix.
  const prefix = format === 'ustar' ? text(block, 345, 155) : ''
  const type = block.toString('latin1', 156, 157)
  return {
    format,
    name: prefix === '' ? name : `${prefix}/${name}`,
    link: text(block, 157, 100),
    type: type === '\0' ? '0' : type,
    mode: natural(block, 100, 8, `mode of ${show(name)}`),
    uid: natural(block, 108, 8, `uid of ${show(name)}`),
    gid: natural(block, 116, 8, `gid of ${show(name)}`),
    size: natural(block, 124, 12, `size of ${show(name)}`),
    mtime: Math.max(0, number(block, 136, 12, `mtime of ${show(name)}`)),
    deviceMajor: format === 'old' ? 0 : natural(block, 329, 8, `device of ${show(name)}`),
    deviceMinor: format === 'old' ? 0 : natural(block, 337, 8, `device of ${show(name)}`),
  }
}
