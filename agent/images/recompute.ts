/**
 * What the rootfs worker claims, computed again outside it: the digests of the layers it was given,
 * and the Merkle tree of what it wrote. The worker reads hostile bytes and might have been taken
 * over; it can then still write a wrong file system, but not one that its root does not name.
 */
import { createHash, hash } from 'node:crypto'
import { fstatSync, readSync } from 'node:fs'

import { BLOCK } from '../../native/workers/rootfs/erofs-format.ts'
import { verityTree } from '../../native/workers/rootfs/verity.ts'

export interface RecomputeInput {
  readonly layerFds: readonly number[]
  readonly outputFd: number
  readonly dataBlocks: number
  /** Hex. */
  readonly salt: string
}

export interface Recomputed {
  readonly layerDigests: readonly string[]
  /** Hex. */
  readonly root: string
  /** Bytes of the output. */
  readonly size: number
  /** The output holds `dataBlocks` blocks, then exactly this tree. */
  readonly treeMatches: boolean
}

const CHUNK_BYTES = 1 << 20

function digestOfFile(fd: number, from = 0): string {
  const hasher = createHash('sha256')
  const chunk = Buffer.allocUnsafe(CHUNK_BYTES)
  for (let at = from; ; ) {
    const count = readSync(fd, chunk, 0, chunk.length, at)
    if (count === 0) return hasher.digest('hex')
    hasher.update(chunk.subarray(0, count))
    at += count
  }
}

/** Synchronous and long: for a thread. */
export function recompute({ layerFds, outputFd, dataBlocks, salt }: RecomputeInput): Recomputed {
  const layerDigests = layerFds.map((fd) => `sha256:${digestOfFile(fd)}`)
  const { size } = fstatSync(outputFd)
  if (dataBlocks * BLOCK > size) return { layerDigests, root: '', size, treeMatches: false }
  const { root, tree } = verityTree(outputFd, dataBlocks, Buffer.from(salt, 'hex'))
  const rest = digestOfFile(outputFd, dataBlocks * BLOCK)
  const treeMatches = rest === hash('sha256', tree, 'hex')
  return { layerDigests, root: root.toString('hex'), size, treeMatches }
}
