/** Writes what erofs-layout.ts decided: superblock, inodes and directories; and bodies as they come. */
import { writeSync } from 'node:fs'

import {
  BLOCK,
  BLOCK_BITS,
  COMPAT_MTIME,
  DIRENT_BYTES,
  FORMAT_INLINE,
  FORMAT_PLAIN,
  INODE_BYTES,
  KINDS,
  MAGIC,
  NO_BLOCK,
  ROOT_SLOT,
  SLOT_BYTES,
  SUPERBLOCK_OFFSET,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
} from './erofs-format.ts'
import { direntBlocks, type Inode, type Layout, META_BLOCK } from './erofs-layout.ts'
import type { Node } from './tree.ts'
import type { Xattr } from './xattr.ts'

/** Writes all of `bytes` at `position`. */
export function writeAll(fd: number, bytes: Buffer, position: number): void {
  let written = 0
  while (written < bytes.length) {
    written += writeSync(fd, bytes, written, bytes.length - written, position + written)
  }
}

const slotOf = (inode: Inode): bigint => BigInt(inode.position / SLOT_BYTES)

/** The kernel's huge encoding of device numbers: 12 bits of major, 20 of minor. */
const deviceNumber = (major: number, minor: number): number =>
  ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0

const dataWord = (node: Node, block: number): number =>
  'deviceMajor' in node ? deviceNumber(node.deviceMajor, node.deviceMinor) : block

function writeXattrs(into: Buffer, start: number, xattrs: readonly Xattr[]): void {
  let at = start + XATTR_HEADER_BYTES
  for (const { prefix, suffix, value } of xattrs) {
    into[at] = suffix.length
    into[at + 1] = prefix
    into.writeUInt16LE(value.length, at + 2)
    at += XATTR_ENTRY_BYTES
    at += into.write(suffix, at, 'latin1')
    at += value.copy(into, at)
    at = Math.ceil(at / 4) * 4
  }
}

function inodeBytes(inode: Inode): Buffer {
  const { node, xattrBytes } = inode
  const bytes = Buffer.alloc(INODE_BYTES + xattrBytes)
  bytes.writeUInt16LE(inode.tail > 0 ? FORMAT_INLINE : FORMAT_PLAIN, 0)
  bytes.writeUInt16LE(xattrBytes === 0 ? 0 : (xattrBytes - XATTR_HEADER_BYTES) / 4 + 1, 2)
  bytes.writeUInt16LE(KINDS[node.kind].mode | node.meta.mode, 4)
  bytes.writeBigUInt64LE(BigInt(inode.size), 8)
  bytes.writeUInt32LE(dataWord(node, inode.block), 16)
  bytes.writeUInt32LE(inode.number, 20)
  bytes.writeUInt32LE(node.meta.uid, 24)
  bytes.writeUInt32LE(node.meta.gid, 28)
  bytes.writeBigUInt64LE(BigInt(node.meta.mtime), 32)
  bytes.writeUInt32LE(node.meta.mtimeNanoseconds, 40)
  bytes.writeUInt32LE(inode.links, 44)
  writeXattrs(bytes, INODE_BYTES, node.meta.xattrs)
  return bytes
}

/** The data of a directory: in each block first the entries, then the names. */
function directoryBytes(inode: Inode): Buffer {
  const bytes = Buffer.alloc(inode.size)
  for (const [index, names] of direntBlocks(inode.names).entries()) {
    const start = index * BLOCK
    let nameAt = names.length * DIRENT_BYTES
    for (const [position, [name, target]] of names.entries()) {
      const at = start + position * DIRENT_BYTES
      bytes.writeBigUInt64LE(slotOf(target), at)
      bytes.writeUInt16LE(nameAt, at + 8)
      bytes[at + 10] = KINDS[target.node.kind].dirent
      nameAt += bytes.write(name, start + nameAt, 'latin1')
    }
  }
  return bytes
}

function superblock(layout: Layout, uuid: Buffer): Buffer {
  const bytes = Buffer.alloc(BLOCK)
  const at = SUPERBLOCK_OFFSET
  bytes.writeUInt32LE(MAGIC, at)
  bytes.writeUInt32LE(COMPAT_MTIME, at + 8)
  bytes[at + 12] = BLOCK_BITS
  bytes.writeUInt16LE(ROOT_SLOT, at + 14)
  bytes.writeBigUInt64LE(BigInt(layout.inodes.length), at + 16)
  bytes.writeUInt32LE(layout.blocks, at + 36)
  bytes.writeUInt32LE(META_BLOCK, at + 40)
  uuid.copy(bytes, at + 48)
  return bytes
}

/** Writes data of an inode: a chunk of it, `offset` bytes in. The end may lie behind the inode. */
export function writeData(fd: number, inode: Inode, chunk: Buffer, offset: number): void {
  const inBlocks = inode.size - inode.tail
  const first = chunk.subarray(0, Math.max(0, inBlocks - offset))
  if (first.length > 0 && inode.block !== NO_BLOCK) {
    writeAll(fd, first, inode.block * BLOCK + offset)
  }
  const rest = chunk.subarray(first.length)
  if (rest.length === 0) return
  const tailAt = META_BLOCK * BLOCK + inode.position + INODE_BYTES + inode.xattrBytes
  writeAll(fd, rest, tailAt + offset + first.length - inBlocks)
}

/** Collects inodes that lie one after the other, to write many with one call. */
const WINDOW_BYTES = 1 << 20

/** Writes everything but the bodies of files; the output must be empty (all zeros). */
export function writeMetadata(fd: number, layout: Layout, uuid: Buffer): void {
  writeAll(fd, superblock(layout, uuid), 0)
  let window: Buffer[] = []
  let start = 0
  let end = 0
  const flush = (): void => {
    writeAll(fd, Buffer.concat(window), META_BLOCK * BLOCK + start)
    window = []
  }
  for (const inode of layout.inodes) {
    if (inode.position - start > WINDOW_BYTES) flush()
    if (window.length === 0) start = end = inode.position
    // Between two inodes: a tail that is written later, or nothing.
    if (inode.position > end) window.push(Buffer.alloc(inode.position - end))
    const bytes = inodeBytes(inode)
    window.push(bytes)
    end = inode.position + bytes.length
  }
  flush()
  for (const inode of layout.inodes) {
    const { node } = inode
    if (node.kind === 'directory') writeData(fd, inode, directoryBytes(inode), 0)
    else if (node.kind === 'symlink') writeData(fd, inode, Buffer.from(node.link, 'latin1'), 0)
  }
}
