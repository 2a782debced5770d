/** The two digests of disks that docs/formats.md section 2 defines, for disks made at set-up. */
import { createHash } from 'node:crypto'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'

export const BLOCK = 4096
const HASHES_PER_BLOCK = 128
const ZERO = Buffer.alloc(BLOCK)

/** Calls `each(index, block)` for all blocks; `block` is reused. Returns the size in bytes. */
function forEachBlock(file, each) {
  const fd = openSync(file, 'r')
  try {
    const { size } = fstatSync(fd)
    if (size === 0 || size % BLOCK !== 0)
      throw new Error(`${file} is not a whole number of ${BLOCK}-byte blocks`)
    const block = Buffer.alloc(BLOCK)
    for (let index = 0; index * BLOCK < size; index += 1) {
      if (readSync(fd, block, 0, BLOCK, index * BLOCK) !== BLOCK)
        throw new Error(`${file} ended early`)
      each(index, block)
    }
    return size
  } finally {
    closeSync(fd)
  }
}

const u64 = (number) => {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64LE(BigInt(number))
  return bytes
}

/** Block digest of a sparse file: all blocks that are not zero, each after its index, then the size. */
export function blockDigest(file) {
  const hash = createHash('sha256')
  const size = forEachBlock(file, (index, block) => {
    if (!block.equals(ZERO)) hash.update(u64(index)).update(block)
  })
  return { size, blocks: `sha256:${hash.update(u64(size)).digest('hex')}` }
}

/**
 * The dm-verity tree (version 1, SHA-256, 4096/4096, no superblock) of a file, top level first.
 * Returns the tree's bytes and what a spec says about the disk.
 */
export function verityTree(file, salt) {
  const seed = Buffer.from(salt, 'hex')
  const digest = (block) => createHash('sha256').update(seed).update(block).digest()
  let hashes = []
  const size = forEachBlock(file, (_index, block) => hashes.push(digest(block)))
  const levels = []
  while (hashes.length > 1) {
    const level = []
    for (let first = 0; first < hashes.length; first += HASHES_PER_BLOCK) {
      level.push(Buffer.concat([...hashes.slice(first, first + HASHES_PER_BLOCK), ZERO], BLOCK))
    }
    levels.unshift(...level)
    hashes = level.map(digest)
  }
  const verity = { data_blocks: size / BLOCK, root: hashes[0].toString('hex'), salt }
  return { tree: Buffer.concat(levels), verity }
}
