import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  consistencyRanges,
  EMPTY_ROOT,
  Frontier,
  inclusionRanges,
  leafHash,
  nodeHash,
  type Range,
  verifyConsistency,
  verifyInclusion,
} from '../../audit/merkle.ts'

const leaves = Array.from({ length: 260 }, (_, index) => leafHash(Buffer.from(String(index))))
const known = new Map<string, Buffer>()

/** MTH of RFC 6962 section 2.1 as it is written there: recursive, and remembered to be bearable. */
function treeHash({ from, to }: Range): Buffer {
  const key = `${from}-${to}`
  const found = known.get(key)
  if (found !== undefined) return found
  let middle = 1
  while (middle * 2 < to - from) middle *= 2
  const hash =
    to - from === 1
      ? (leaves[from] ?? EMPTY_ROOT)
      : nodeHash(treeHash({ from, to: from + middle }), treeHash({ from: from + middle, to }))
  known.set(key, hash)
  return hash
}

const rootOf = (size: number): Buffer => (size === 0 ? EMPTY_ROOT : treeHash({ from: 0, to: size }))
const sizes = [...Array.from({ length: 131 }, (_, size) => size), 255, 256, 257]

suite('audit/merkle', () => {
  test('hashes as RFC 6962 says', () => {
    assert.equal(
      EMPTY_ROOT.toString('hex'),
      'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
    )
    assert.equal(
      leafHash(Buffer.alloc(0)).toString('hex'),
      '6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d',
    )
  })

  test('grows a frontier to the root of every size', () => {
    const frontier = new Frontier()
    for (const [index, leaf] of leaves.entries()) {
      assert.ok(frontier.root().equals(rootOf(index)), `size ${index}`)
      frontier.append(leaf)
    }
    assert.throws(() => new Frontier(3, [EMPTY_ROOT]), RangeError)
  })

  test('proves and verifies every leaf of every tree up to 130 and around 256', () => {
    for (const size of sizes) {
      const root = rootOf(size)
      for (let index = 0; index < size; index += 1) {
        const leaf = leaves[index] ?? EMPTY_ROOT
        const path = inclusionRanges(index, size).map(treeHash)
        assert.ok(verifyInclusion({ index, size }, leaf, path, root))
        assert.ok(!verifyInclusion({ index: index ^ 1, size }, leaf, path, root))
        assert.ok(!verifyInclusion({ index, size }, EMPTY_ROOT, path, root))
        assert.ok(!verifyInclusion({ index, size }, leaf, [...path, EMPTY_ROOT], root))
        assert.ok(size === 1 || !verifyInclusion({ index, size }, leaf, path.slice(1), root))
      }
    }
  })

  test('proves and verifies that every tree extends every older one', () => {
    for (const size of sizes) {
      const newer = { size, root: rootOf(size) }
      for (let old = 0; old <= size; old += 1) {
        const older = { size: old, root: rootOf(old) }
        const proof = consistencyRanges(old, size).map(treeHash)
        assert.ok(verifyConsistency(older, newer, proof), `${old} to ${size}`)
        assert.ok(!verifyConsistency(older, newer, [...proof, EMPTY_ROOT]))
        const forged = { size: old, root: leafHash(older.root) }
        assert.ok(!verifyConsistency(forged, newer, proof), `forged ${old} to ${size}`)
        const rewritten = { size, root: leafHash(newer.root) }
        assert.ok(old === 0 || !verifyConsistency(older, rewritten, proof))
      }
    }
  })

  test('refuses indexes and sizes that are not there', () => {
    assert.throws(() => inclusionRanges(1, 1), RangeError)
    assert.throws(() => inclusionRanges(-1, 1), RangeError)
    assert.throws(() => consistencyRanges(2, 1), RangeError)
    assert.ok(!verifyInclusion({ index: 0, size: 0 }, EMPTY_ROOT, [], EMPTY_ROOT))
  })
})
