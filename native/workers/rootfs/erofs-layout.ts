/**
 * Decides where everything of an EROFS image lies, before a byte is written. Depends on the tree
 * alone: same layers, same image, on every host.
 *
 *     block 0          superblock
 *     block 1...       inodes, depth first with names sorted, each followed by its extended
 *                      attributes and, where it fits into the same block, the last part of its data
 *     then             directories, then bodies of files, in the order of the inodes
 */
import {
  BLOCK,
  DIRENT_BYTES,
  INODE_BYTES,
  NO_BLOCK,
  ROOT_SLOT,
  SLOT_BYTES,
  XATTR_ENTRY_BYTES,
  XATTR_HEADER_BYTES,
} from './erofs-format.ts'
import { tooLarge } from './failure.ts'
import type { Directory, File, Node } from './tree.ts'
import type { Xattr } from './xattr.ts'

/** First block of the metadata: the superblock has the one before for itself. */
export const META_BLOCK = 1

export interface Inode {
  readonly node: Node
  /** Of a directory: itself for the root. */
  readonly parent: Inode | null
  /** From 1, for stat(2). */
  readonly number: number
  links: number
  /** Bytes from the start of the metadata. */
  position: number
  xattrBytes: number
  /** Bytes of data. */
  size: number
  /** Last bytes of the data that lie behind the inode; 0 when the data is in blocks only. */
  tail: number
  /** First block of the data that lies in blocks. */
  block: number
  /** Directory: its names in order, '.' and '..' among them. */
  names: readonly (readonly [string, Inode])[]
}

export interface Layout {
  readonly inodes: readonly Inode[]
  readonly byFile: ReadonlyMap<File, Inode>
  readonly metaBlocks: number
  /** Blocks of the whole file system. */
  readonly blocks: number
}

const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to

/** Size of the attributes behind an inode. */
export function xattrBytes(xattrs: readonly Xattr[]): number {
  if (xattrs.length === 0) return 0
  let bytes = XATTR_HEADER_BYTES
  for (const { suffix, value } of xattrs) {
    bytes += roundUp(XATTR_ENTRY_BYTES + suffix.length + value.length, 4)
  }
  return bytes
}

/** Names are bytes kept as latin1, so comparing strings compares bytes. */
const byName = (a: readonly [string, Inode], b: readonly [string, Inode]): number =>
  a[0] < b[0] ? -1 : 1

/** How the names of a directory fall into blocks: no entry crosses one. */
export function direntBlocks<T extends readonly [string, unknown]>(names: readonly T[]): T[][] {
  const blocks: T[][] = []
  let current: T[] = []
  let bytes = 0
  for (const name of names) {
    const entry = DIRENT_BYTES + name[0].length
    if (bytes + entry > BLOCK) {
      blocks.push(current)
      current = []
      bytes = 0
    }
    current.push(name)
    bytes += entry
  }
  blocks.push(current)
  return blocks
}

function directorySize(names: Inode['names']): number {
  const blocks = direntBlocks(names)
  const last = blocks.at(-1) ?? []
  const lastBytes = last.reduce((sum, [name]) => sum + DIRENT_BYTES + name.length, 0)
  return (blocks.length - 1) * BLOCK + lastBytes
}

class Collector {
  readonly inodes: Inode[] = []
  readonly #seen = new Map<Node, Inode>()

  /** The inode of a node, and of all below it; a second name of a node adds a link. */
  add(node: Node, parent: Inode | null): Inode {
    const known = this.#seen.get(node)
    if (known !== undefined) {
      known.links += 1
      return known
    }
    const inode: Inode = {
      node,
      parent,
      number: this.inodes.length + 1,
      links: node.kind === 'directory' ? 2 : 1,
      position: 0,
      xattrBytes: xattrBytes(node.meta.xattrs),
      size: 0,
      tail: 0,
      block: NO_BLOCK,
      names: [],
    }
    this.#seen.set(node, inode)
    this.inodes.push(inode)
    if (node.kind === 'directory') this.#children(node, inode)
    else if (node.kind === 'file') inode.size = node.size
    else if (node.kind === 'symlink') inode.size = node.link.length
    return inode
  }

  #children(directory: Directory, inode: Inode): void {
    const sorted = [...directory.children].toSorted(([a], [b]) => (a < b ? -1 : 1))
    const names = sorted.map(([name, { node }]): readonly [string, Inode] => {
      if (node.kind === 'directory') inode.links += 1
      return [name, this.add(node, inode)]
    })
    const dots: Inode['names'] = [
      ['.', inode],
      ['..', inode.parent ?? inode],
    ]
    inode.names = [...names, ...dots].toSorted(byName)
    inode.size = directorySize(inode.names)
  }
}

/**
 * Gives every inode its slot. Inode, attributes and inline tail stay in one block where they can;
 * a tail that would cross a block's end is not inline (the kernel takes it for corruption).
 * @returns bytes of metadata
 */
function placeInodes(inodes: readonly Inode[]): number {
  let position = ROOT_SLOT * SLOT_BYTES
  for (const inode of inodes) {
    const head = INODE_BYTES + inode.xattrBytes
    const tail = inode.size % BLOCK
    inode.tail = head + tail <= BLOCK ? tail : 0
    const bytes = head + inode.tail
    const left = BLOCK - (position % BLOCK)
    // Attributes over a block may cross its end, the inode before them may not.
    if (bytes > left) position += left
    inode.position = position
    position = roundUp(position + bytes, SLOT_BYTES)
  }
  return position
}

export function layOut(root: Directory): Layout {
  const { inodes } = collect(root)
  const metaBlocks = Math.ceil(placeInodes(inodes) / BLOCK)
  let block = META_BLOCK + metaBlocks
  const place = (inode: Inode): void => {
    const blocks = Math.ceil((inode.size - inode.tail) / BLOCK)
    if (blocks > 0) inode.block = block
    block += blocks
  }
  for (const inode of inodes) if (inode.node.kind === 'directory') place(inode)
  for (const inode of inodes) if (inode.node.kind !== 'directory') place(inode)
  if (block >= NO_BLOCK) throw tooLarge('the image has too many blocks')
  const byFile = new Map<File, Inode>()
  for (const inode of inodes) if (inode.node.kind === 'file') byFile.set(inode.node, inode)
  return { inodes, byFile, metaBlocks, blocks: block }
}

function collect(root: Directory): Collector {
  const collector = new Collector()
  collector.add(root, null)
  return collector
}
