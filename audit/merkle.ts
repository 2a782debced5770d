/**
 * Merkle trees of RFC 6962 section 2: hashes, the frontier of a growing tree, and proofs.
 *
 * Everything is pure. A proof is first computed as ranges of leaves, then the caller says where the
 * hashes of perfect subtrees come from (memory or tiles), so that one code serves both.
 */
import { createHash } from 'node:crypto'

export const HASH_BYTES = 32

/** SHA-256 of the parts, one after the other. */
export function sha256(...parts: readonly (Uint8Array | string)[]): Buffer {
  const hash = createHash('sha256')
  for (const part of parts) hash.update(part)
  return hash.digest()
}

const leafPrefix = Buffer.from([0])
const nodePrefix = Buffer.from([1])

/** SHA-256(0x00 || entry). */
export const leafHash = (entry: Uint8Array): Buffer => sha256(leafPrefix, entry)
/** SHA-256(0x01 || left || right). */
export const nodeHash = (left: Uint8Array, right: Uint8Array): Buffer =>
  sha256(nodePrefix, left, right)
/** Root of a tree without leaves: SHA-256 of nothing. */
export const EMPTY_ROOT: Buffer = sha256()

/** The leaves `from` (inclusive) to `to` (exclusive). */
export type Range = { readonly from: number; readonly to: number }
/** A perfect subtree: the 2^level leaves from index * 2^level on. */
export type Node = { readonly level: number; readonly index: number }

/** Largest power of two below `count` (count > 1). */
function half(count: number): number {
  let power = 1
  while (power * 2 < count) power *= 2
  return power
}

/** The perfect subtrees whose hashes, folded, are the hash of `range`; largest first. */
export function perfectNodes(range: Range): readonly Node[] {
  const nodes: Node[] = []
  let from = range.from
  while (from < range.to) {
    let level = 0
    let width = 1
    while (from % (width * 2) === 0 && from + width * 2 <= range.to) {
      width *= 2
      level += 1
    }
    nodes.push({ level, index: from / width })
    from += width
  }
  return nodes
}

/** The hash of a range from those of its perfect subtrees, as perfectNodes orders them. */
export function foldNodes(hashes: readonly Uint8Array[]): Buffer {
  const [last, ...rest] = hashes.toReversed()
  if (last === undefined) return EMPTY_ROOT
  return rest.reduce<Buffer>((right, left) => nodeHash(left, right), Buffer.from(last))
}

/** PATH(index, D[size]) of RFC 6962 section 2.1.1: ranges, sibling of the leaf first. */
export function inclusionRanges(index: number, size: number): readonly Range[] {
  if (index < 0 || index >= size) throw new RangeError(`leaf ${index} is not in a tree of ${size}`)
  const ranges: Range[] = []
  let from = 0
  let to = size
  while (to - from > 1) {
    const middle = from + half(to - from)
    if (index < middle) {
      ranges.unshift({ from: middle, to })
      to = middle
    } else {
      ranges.unshift({ from, to: middle })
      from = middle
    }
  }
  return ranges
}

/** PROOF(old, D[size]) of RFC 6962 section 2.1.2. */
export function consistencyRanges(old: number, size: number): readonly Range[] {
  if (old < 0 || old > size) throw new RangeError(`a tree of ${size} does not extend one of ${old}`)
  if (old === 0 || old === size) return []
  const ranges: Range[] = []
  let from = 0
  let to = size
  // Whether [0, old) is a whole subtree of the path taken: then its hash is known to the verifier.
  let known = true
  while (to !== old) {
    const middle = from + half(to - from)
    if (old <= middle) {
      ranges.unshift({ from: middle, to })
      to = middle
    } else {
      ranges.unshift({ from, to: middle })
      from = middle
      known = false
    }
  }
  if (!known) ranges.unshift({ from, to })
  return ranges
}

/** Whether the path shows that `leaf` is at `index` of the tree of `size` under `root`. */
export function verifyInclusion(
  at: { readonly index: number; readonly size: number },
  leaf: Uint8Array,
  path: readonly Uint8Array[],
  root: Uint8Array,
): boolean {
  if (at.index < 0 || at.index >= at.size) return false
  const ranges = inclusionRanges(at.index, at.size)
  if (ranges.length !== path.length) return false
  let hash: Buffer = Buffer.from(leaf)
  for (const [position, range] of ranges.entries()) {
    const sibling = path[position]
    if (sibling === undefined) return false
    hash = range.from > at.index ? nodeHash(hash, sibling) : nodeHash(sibling, hash)
  }
  return hash.equals(root)
}

/** Size and root of a tree. */
export type TreeHead = { readonly size: number; readonly root: Uint8Array }

/** Both roots, as the proof's hashes make them; sizes differ and neither is 0. */
function rootsFrom(
  older: TreeHead,
  ranges: readonly Range[],
  proof: readonly Uint8Array[],
): readonly [Buffer, Buffer] {
  const steps = proof.map((hash, position) => ({
    hash,
    isLeft: (ranges[position]?.to ?? 0) <= older.size,
  }))
  // The deepest range is left of the older size, and then the start of both trees; or there is no
  // left range at all, because the older root is itself a subtree of the newer tree.
  const start = steps[0]?.isLeft === true ? steps.shift()?.hash : older.root
  let oldHash: Buffer = Buffer.from(start ?? EMPTY_ROOT)
  let newHash: Buffer = oldHash
  for (const { hash, isLeft } of steps) {
    if (isLeft) oldHash = nodeHash(hash, oldHash)
    newHash = isLeft ? nodeHash(hash, newHash) : nodeHash(newHash, hash)
  }
  return [oldHash, newHash]
}

/** Whether the proof shows that the newer tree begins with the older one. */
export function verifyConsistency(
  older: TreeHead,
  newer: TreeHead,
  proof: readonly Uint8Array[],
): boolean {
  if (older.size > newer.size) return false
  if (older.size === newer.size) return proof.length === 0 && equal(older.root, newer.root)
  if (older.size === 0) return proof.length === 0 && equal(older.root, EMPTY_ROOT)
  const ranges = consistencyRanges(older.size, newer.size)
  if (ranges.length !== proof.length) return false
  const [oldRoot, newRoot] = rootsFrom(older, ranges, proof)
  return equal(oldRoot, older.root) && equal(newRoot, newer.root)
}

const equal = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

/**
 * The right edge of a tree: enough to append and to know the root, 32 bytes a level. `hashes` are
 * those of perfectNodes({from: 0, to: size}).
 */
export class Frontier {
  #size: number
  readonly #hashes: Buffer[]

  constructor(size = 0, hashes: readonly Uint8Array[] = []) {
    if (
      !Number.isSafeInteger(size) ||
      perfectNodes({ from: 0, to: size }).length !== hashes.length
    ) {
      throw new RangeError(`a tree of ${size} leaves does not have ${hashes.length} peaks`)
    }
    this.#size = size
    this.#hashes = hashes.map((hash) => Buffer.from(hash))
  }

  get size(): number {
    return this.#size
  }

  get hashes(): readonly Buffer[] {
    return this.#hashes
  }

  append(leaf: Uint8Array): void {
    let hash: Buffer = Buffer.from(leaf)
    for (let size = this.#size; size % 2 === 1; size = (size - 1) / 2) {
      const left = this.#hashes.pop()
      if (left === undefined) throw new RangeError('the frontier lost a peak')
      hash = nodeHash(left, hash)
    }
    this.#hashes.push(hash)
    this.#size += 1
  }

  root(): Buffer {
    return foldNodes(this.#hashes)
  }

  clone(): Frontier {
    return new Frontier(this.#size, this.#hashes)
  }
}
