/**
 * Numbers of the EROFS on-disk format (fs/erofs/erofs_fs.h of Linux 6.1), as far as used: one
 * device, no compression, extended inodes, inline extended attributes. All little endian.
 */
import type { Node } from './tree.ts'

export const BLOCK = 4096
export const BLOCK_BITS = 12
export const SUPERBLOCK_OFFSET = 1024
export const MAGIC = 0xe0f5e1e2
/** Inode times are modification times. */
export const COMPAT_MTIME = 0x2

export const INODE_BYTES = 64
/** Inodes are addressed in slots of 32 bytes from the start of the metadata. */
export const SLOT_BYTES = 32
/**
 * Slot of the root directory. Slot 0 would make inode number 0, which readdir in C libraries takes
 * for a deleted name; it must also fit into 16 bits, so the root comes first.
 */
export const ROOT_SLOT = 2

/** Format bits of an inode: extended, with its data in blocks of its own. */
export const FORMAT_PLAIN = 1
/** The same, with the last part of the data behind the inode. */
export const FORMAT_INLINE = 5
export const NO_BLOCK = 0xffffffff

export const XATTR_HEADER_BYTES = 12
export const XATTR_ENTRY_BYTES = 4
export const DIRENT_BYTES = 12

/** `mode` bits of the file type and the type number in directory entries. */
export const KINDS: Readonly<
  Record<Node['kind'], { readonly mode: number; readonly dirent: number }>
> = {
  file: { mode: 0o100000, dirent: 1 },
  directory: { mode: 0o040000, dirent: 2 },
  'character-device': { mode: 0o020000, dirent: 3 },
  'block-device': { mode: 0o060000, dirent: 4 },
  fifo: { mode: 0o010000, dirent: 5 },
  symlink: { mode: 0o120000, dirent: 7 },
}
