/**
 * dm-verity trees, version 1: SHA-256 over salt and block, blocks of 4096 bytes, no superblock, the
 * top level first (Documentation/admin-guide/device-mapper/verity.rst). `veritysetup` makes the same
 * bytes. The VMM checks each block the guest reads against this tree.
 */
import { hash } from 'node:crypto'
import { readSync } from 'node:fs'

import { BLOCK } from './erofs-format.ts'

const DIGEST_BYTES = 32
const DIGESTS_PER_BLOCK = BLOCK / DIGEST_BYTES
const READ_BLOCKS = 64

export interface VerityTree {
  readonly root: Buffer
  /** All levels, the top one first. */
  readonly tree: Buffer
}

/** Hashes blocks behind a salt without copying the salt for each. */
class SaltedHash {
  readonly #buffer: Buffer
  readonly #saltBytes: number

  constructor(salt: Buffer) {
    this.#buffer = Buffer.alloc(salt.length + BLOCK)
    this.#saltBytes = salt.copy(this.#buffer)
  }

  /** Hashes the 4096 bytes of `from` at `at`. */
  of(from: Buffer, at: number): Buffer {
    from.copy(this.#buffer, this.#saltBytes, at, at + BLOCK)
    return hash('sha256', this.#buffer, 'buffer')
  }
}

/** Hashes of the blocks of a level, themselves filled up to whole blocks. */
function levelAbove(hasher: SaltedHash, level: Buffer): Buffer {
  const count = level.length / BLOCK
  const above = Buffer.alloc(Math.ceil(count / DIGESTS_PER_BLOCK) * BLOCK)
  for (let block = 0; block < count; block += 1) {
    hasher.of(level, block * BLOCK).copy(above, block * DIGEST_BYTES)
  }
  return above
}

function hashData(fd: number, dataBlocks: number, hasher: SaltedHash): Buffer {
  const leaves = Buffer.alloc(Math.ceil(dataBlocks / DIGESTS_PER_BLOCK) * BLOCK)
  const chunk = Buffer.alloc(READ_BLOCKS * BLOCK)
  for (let first = 0; first < dataBlocks; first += READ_BLOCKS) {
    const blocks = Math.min(READ_BLOCKS, dataBlocks - first)
    let filled = 0
    while (filled < blocks * BLOCK) {
      const count = readSync(fd, chunk, filled, blocks * BLOCK - filled, first * BLOCK + filled)
      if (count === 0) throw new Error(`the image ends before its ${dataBlocks} blocks`)
      filled += count
    }
    for (let block = 0; block < blocks; block += 1) {
      hasher.of(chunk, block * BLOCK).copy(leaves, (first + block) * DIGEST_BYTES)
    }
  }
  return leaves
}

/** Bytes of the tree over so many blocks, known before any of them is written. */
export function treeBytes(dataBlocks: number): number {
  let level = dataBlocks
  let blocks = 0
  do {
    level = Math.ceil(level / DIGESTS_PER_BLOCK)
    blocks += level
  } while (level > 1)
  return blocks * BLOCK
}

/**
 * The tree over the first `dataBlocks` blocks of a descriptor. Synchronous, about two seconds for a
 * GiB: for a process or thread of its own.
 * @param dataBlocks at least 2
 */
export function verityTree(fd: number, dataBlocks: number, salt: Buffer): VerityTree {
  const hasher = new SaltedHash(salt)
  const levels = [hashData(fd, dataBlocks, hasher)]
  let top = levels[0]
  while (top !== undefined && top.length > BLOCK) {
    top = levelAbove(hasher, top)
    levels.unshift(top)
  }
  return { root: hasher.of(top ?? Buffer.alloc(BLOCK), 0), tree: Buffer.concat(levels) }
}
