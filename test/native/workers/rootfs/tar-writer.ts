/** Writes tar archives byte by byte, so that tests can write wrong ones too. */
import { Buffer } from 'node:buffer'

export interface Entry {
  readonly name: string
  /** Type flag; '0' is a file. */
  readonly type?: string
  readonly body?: Buffer | string
  readonly link?: string
  readonly mode?: number
  readonly uid?: number
  readonly gid?: number
  readonly mtime?: number
  /** Instead of the body's length. */
  readonly size?: number
  readonly device?: readonly [number, number]
  readonly magic?: string
  /** Bytes laid over the finished header before its checksum is made. */
  readonly patch?: (header: Buffer) => void
}

const BLOCK = 512
const octal = (value: number, width: number): string =>
  `${value.toString(8).padStart(width - 1, '0')}\0`

/** Numbers too large for octal in GNU's binary form. */
function writeNumber(header: Buffer, value: number, at: number, width: number): void {
  if (value < 8 ** (width - 1)) header.write(octal(value, width), at, 'latin1')
  else {
    header.writeBigUInt64BE(BigInt(value), at + width - 8)
    header[at] = 0x80
  }
}

export function sealHeader(header: Buffer): Buffer {
  header.write(' '.repeat(8), 148, 'latin1')
  const sum = header.reduce((total, byte) => total + byte, 0)
  header.write(`${sum.toString(8).padStart(6, '0')}\0 `, 148, 'latin1')
  return header
}

const padded = (body: Buffer): Buffer =>
  Buffer.concat([body, Buffer.alloc((BLOCK - (body.length % BLOCK)) % BLOCK)])

const DEFAULTS = {
  type: '0',
  body: '',
  link: '',
  uid: 0,
  gid: 0,
  mtime: 1_000_000_000,
  device: [0, 0],
  magic: 'ustar\x0000',
} as const

/** One entry: header, body, padding. */
export function entry(given: Entry): Buffer {
  const fields = { ...DEFAULTS, ...given }
  const body = Buffer.from(fields.body)
  const header = Buffer.alloc(BLOCK)
  header.write(fields.name, 0, 100, 'latin1')
  writeNumber(header, fields.mode ?? (fields.type === '5' ? 0o755 : 0o644), 100, 8)
  writeNumber(header, fields.uid, 108, 8)
  writeNumber(header, fields.gid, 116, 8)
  writeNumber(header, fields.size ?? body.length, 124, 12)
  writeNumber(header, fields.mtime, 136, 12)
  header.write(fields.type, 156, 'latin1')
  header.write(fields.link, 157, 100, 'latin1')
  header.write(fields.magic, 257, 'latin1')
  writeNumber(header, fields.device[0], 329, 8)
  writeNumber(header, fields.device[1], 337, 8)
  fields.patch?.(header)
  return Buffer.concat([sealHeader(header), padded(body)])
}

export const directory = (name: string, fields: Partial<Entry> = {}): Buffer =>
  entry({ name, type: '5', ...fields })
export const file = (name: string, body: Buffer | string, fields: Partial<Entry> = {}): Buffer =>
  entry({ name, body, ...fields })
export const symlink = (name: string, link: string): Buffer => entry({ name, type: '2', link })
export const hardlink = (name: string, link: string): Buffer => entry({ name, type: '1', link })
export const whiteout = (name: string): Buffer => entry({ name })

/** Records of a PAX header with their lengths, which count themselves. */
export function paxRecords(records: Readonly<Record<string, string | Buffer>>): Buffer {
  return Buffer.concat(
    Object.entries(records).map(([key, value]) => {
      const rest = Buffer.concat([
        Buffer.from(` ${key}=`, 'latin1'),
        Buffer.from(value),
        Buffer.from('\n'),
      ])
      let length = rest.length + 1
      while (String(length).length + rest.length !== length) length += 1
      return Buffer.concat([Buffer.from(String(length)), rest])
    }),
  )
}

export const pax = (records: Readonly<Record<string, string | Buffer>>): Buffer =>
  entry({ name: 'pax', type: 'x', body: paxRecords(records) })

export const END: Buffer = Buffer.alloc(2 * BLOCK)
/** Entries with the end mark. */
export const archive = (...entries: readonly Buffer[]): Buffer => Buffer.concat([...entries, END])
