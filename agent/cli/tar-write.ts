/** One entry of a tar archive, written: POSIX ustar, with a pax header where a name or a size does not fit. */
import { BLOCK_BYTES } from '../../native/workers/rootfs/tar-header.ts'

const NAME_BYTES_MAX = 100
/** Eleven octal digits: a size from 8 GiB on does not fit. */
const SIZE_MAX = 0o77_777_777_777

export interface TarWrite {
  readonly type: 'file' | 'directory' | 'symlink'
  readonly name: Buffer
  /** Of a link, where it leads in its own words. */
  readonly link: Buffer
  /** Permissions. */
  readonly mode: number
  readonly size: number
  /** Seconds since 1970. */
  readonly mtime: number
}

const TYPES: Readonly<Record<TarWrite['type'] | 'pax', string>> = {
  file: '0',
  symlink: '2',
  directory: '5',
  pax: 'x',
}
const NOTHING: Buffer = Buffer.alloc(0)

/** Zeros that fill a body up to whole blocks. */
export const fillingOf = (size: number): Buffer =>
  Buffer.alloc((BLOCK_BYTES - (size % BLOCK_BYTES)) % BLOCK_BYTES)

/** What ends an archive. */
export const TAR_END: Buffer = Buffer.alloc(2 * BLOCK_BYTES)

function blockOf(
  type: keyof typeof TYPES,
  { name, link, mode, size, mtime }: Omit<TarWrite, 'type'>,
): Buffer {
  const block = Buffer.alloc(BLOCK_BYTES)
  const octal = (value: number, at: number, width: number): void => {
    block.write(value.toString(8).padStart(width, '0'), at, 'latin1')
  }
  name.copy(block, 0, 0, NAME_BYTES_MAX)
  octal(mode & 0o7777, 100, 7)
  // Whose it is in the pod is not for here to say.
  octal(0, 108, 7)
  octal(0, 116, 7)
  octal(Math.min(size, SIZE_MAX), 124, 11)
  octal(Math.min(Math.max(0, Math.floor(mtime)), SIZE_MAX), 136, 11)
  block.write(' '.repeat(8), 148, 'latin1')
  block.write(TYPES[type], 156, 'latin1')
  link.copy(block, 157, 0, NAME_BYTES_MAX)
  block.write('ustar\x0000', 257, 'latin1')
  octal(
    block.reduce((sum, byte) => sum + byte, 0),
    148,
    6,
  )
  block[154] = 0
  return block
}

/** `length key=value\n`, where the length counts itself. */
export function paxRecord(key: string, value: Buffer): Buffer {
  const rest = key.length + value.length + 3
  let length = rest
  while (length !== rest + String(length).length) length = rest + String(length).length
  return Buffer.concat([Buffer.from(`${length} ${key}=`), value, Buffer.from('\n')])
}

/** The bytes before an entry's body. */
export function headerOf(entry: TarWrite): Buffer {
  const records = [
    entry.name.length > NAME_BYTES_MAX ? paxRecord('path', entry.name) : NOTHING,
    entry.link.length > NAME_BYTES_MAX ? paxRecord('linkpath', entry.link) : NOTHING,
    entry.size > SIZE_MAX ? paxRecord('size', Buffer.from(String(entry.size))) : NOTHING,
  ]
  const own = blockOf(entry.type, entry)
  const body = Buffer.concat(records)
  if (body.length === 0) return own
  const pax = { ...entry, name: Buffer.from('pax'), link: NOTHING, size: body.length }
  return Buffer.concat([blockOf('pax', pax), body, fillingOf(body.length), own])
}
