/**
 * Reads EROFS images for tests, from the format's description and not from the writer's code. Knows
 * what the writer uses: extended inodes, flat data, inline tails and attributes.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'

export interface Found {
  readonly type: string
  readonly mode: number
  readonly uid: number
  readonly gid: number
  readonly size: number
  readonly mtime: number
  readonly links: number
  /** Inode number: names of one file share it. */
  readonly inode: number
  /** Files: SHA-256 of the content. Symbolic links: what they say. Devices: major:minor. */
  readonly content: string
  /** `name=hex`, sorted. */
  readonly xattrs: readonly string[]
}

const BLOCK = 4096
const TYPES: Readonly<Record<number, string>> = {
  0o10: 'file',
  0o04: 'directory',
  0o02: 'character-device',
  0o06: 'block-device',
  0o01: 'fifo',
  0o12: 'symlink',
}
const PREFIXES: Readonly<Record<number, string>> = {
  1: 'user.',
  2: 'system.posix_acl_access',
  3: 'system.posix_acl_default',
  6: 'security.',
}

interface Inode {
  readonly at: number
  readonly type: string
  readonly found: Omit<Found, 'content'>
  readonly data: Buffer
  readonly device: number
}

class Reader {
  readonly #image: Buffer
  readonly #meta: number

  constructor(image: Buffer) {
    assert.equal(image.readUInt32LE(1024), 0xe0f5e1e2)
    assert.equal(image[1024 + 12], 12)
    this.#image = image
    this.#meta = image.readUInt32LE(1024 + 40) * BLOCK
  }

  get root(): number {
    return this.#image.readUInt16LE(1024 + 14)
  }

  #xattrs(at: number, count: number): readonly string[] {
    if (count === 0) return []
    const end = at + 12 + (count - 1) * 4
    const found: string[] = []
    let entry = at + 12
    while (entry < end) {
      const nameBytes = this.#image[entry] ?? 0
      const size = this.#image.readUInt16LE(entry + 2)
      const prefix = PREFIXES[this.#image[entry + 1] ?? 0]
      assert.ok(prefix !== undefined)
      const name = this.#image.toString('latin1', entry + 4, entry + 4 + nameBytes)
      const value = this.#image.toString('hex', entry + 4 + nameBytes, entry + 4 + nameBytes + size)
      found.push(`${prefix}${name}=${value}`)
      entry += Math.ceil((4 + nameBytes + size) / 4) * 4
    }
    return found.toSorted()
  }

  inode(nid: number): Inode {
    const image = this.#image
    const at = this.#meta + nid * 32
    const format = image.readUInt16LE(at)
    assert.ok(format === 1 || format === 5, `format ${format}`)
    assert.ok((at % BLOCK) + 64 <= BLOCK, 'an inode crosses a block')
    const count = image.readUInt16LE(at + 2)
    const mode = image.readUInt16LE(at + 4)
    const size = Number(image.readBigUInt64LE(at + 8))
    const word = image.readUInt32LE(at + 16)
    const type = TYPES[mode >> 12] ?? `unknown ${mode}`
    const tailAt = at + 64 + (count === 0 ? 0 : 12 + (count - 1) * 4)
    const tail = format === 5 ? size % BLOCK : 0
    if (tail > 0) assert.ok((tailAt % BLOCK) + tail <= BLOCK, 'a tail crosses a block')
    const start = word === 0xffffffff ? 0 : word * BLOCK
    const holdsData = ['file', 'directory', 'symlink'].includes(type)
    const data = holdsData
      ? Buffer.concat([
          image.subarray(start, start + size - tail),
          image.subarray(tailAt, tailAt + tail),
        ])
      : Buffer.alloc(0)
    const found = {
      type,
      mode: mode & 0o7777,
      uid: image.readUInt32LE(at + 24),
      gid: image.readUInt32LE(at + 28),
      size: type === 'file' ? size : 0,
      mtime: Number(image.readBigUInt64LE(at + 32)),
      links: image.readUInt32LE(at + 44),
      inode: image.readUInt32LE(at + 20),
      xattrs: this.#xattrs(at + 64, count),
    }
    return { at, type, found, data, device: word }
  }

  names(directory: Buffer): readonly (readonly [string, number])[] {
    const found: [string, number][] = []
    for (let start = 0; start < directory.length; start += BLOCK) {
      const block = directory.subarray(start, start + BLOCK)
      const count = block.readUInt16LE(8) / 12
      for (let index = 0; index < count; index += 1) {
        const from = block.readUInt16LE(index * 12 + 8)
        const to = index + 1 < count ? block.readUInt16LE(index * 12 + 20) : block.length
        const name = block.toString('latin1', from, to).replace(/\0+$/u, '')
        found.push([name, Number(block.readBigUInt64LE(index * 12))])
      }
    }
    return found
  }
}

function contentOf({ type, data, device }: Inode): string {
  if (type === 'file') return createHash('sha256').update(data).digest('hex')
  if (type === 'symlink') return data.toString('latin1')
  if (!type.endsWith('-device')) return ''
  return `${(device >>> 8) & 0xfff}:${(device & 0xff) | ((device >>> 12) & 0xfff00)}`
}

/** Everything in an image by path; the root is ''. Checks order and '.', '..' on the way. */
export function readErofs(image: Buffer): ReadonlyMap<string, Found> {
  const reader = new Reader(image)
  const found = new Map<string, Found>()
  const visit = (nid: number, parent: number, path: string): void => {
    const inode = reader.inode(nid)
    found.set(path, { ...inode.found, content: contentOf(inode) })
    if (inode.type !== 'directory') return
    const names = reader.names(inode.data)
    const sorted = names.map(([name]) => name).toSorted((a, b) => (a < b ? -1 : 1))
    assert.deepEqual(
      names.map(([name]) => name),
      sorted,
      'names are in order',
    )
    assert.equal(names.find(([name]) => name === '.')?.[1], nid)
    assert.equal(names.find(([name]) => name === '..')?.[1], parent)
    for (const [name, child] of names) {
      if (name !== '.' && name !== '..') visit(child, nid, path === '' ? name : `${path}/${name}`)
    }
  }
  visit(reader.root, reader.root, '')
  return found
}
