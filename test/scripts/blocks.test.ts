/** The digests that set-up computes of its disks, against veritysetup and against a second reading of the format. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, suite, test } from 'node:test'
import { script } from './script.ts'

interface Verity {
  readonly data_blocks: number
  readonly root: string
  readonly salt: string
}
interface Blocks {
  readonly blockDigest: (file: string) => { readonly size: number; readonly blocks: string }
  readonly verityTree: (
    file: string,
    salt: string,
  ) => { readonly tree: Buffer; readonly verity: Verity }
}

const { blockDigest, verityTree } = await script<Blocks>('setup/blocks.mjs')
const folder = mkdtempSync(path.join(tmpdir(), 'casemate-blocks-'))
after(() => rmSync(folder, { recursive: true }))
const BLOCK = 4096
const salt = 'ab'.repeat(32)

/** A file of `count` blocks that all differ. */
function fileOf(count: number): string {
  const file = path.join(folder, `${count}.img`)
  const blocks = Array.from({ length: count }, (_, index) =>
    createHash('sha256')
      .update(String(index))
      .digest('hex')
      .repeat(BLOCK / 64),
  )
  writeFileSync(file, blocks.join(''))
  return file
}

const noVeritysetup = spawnSync('veritysetup', ['--version']).status !== 0

suite('scripts/setup/blocks', () => {
  for (const count of [2, 127, 128, 129, 128 * 128 + 1]) {
    test(`makes a Merkle tree of ${count} blocks that veritysetup accepts`, {
      skip: noVeritysetup ? 'veritysetup is not installed' : false,
    }, () => {
      const file = fileOf(count)
      const { tree, verity } = verityTree(file, salt)
      assert.equal(verity.data_blocks, count)
      const hashes = `${file}.tree`
      writeFileSync(hashes, tree)
      const options = ['--no-superblock', '--format=1', '--hash=sha256', `--salt=${salt}`]
      const sizes = ['--data-block-size=4096', '--hash-block-size=4096', `--data-blocks=${count}`]
      execFileSync('veritysetup', ['verify', ...options, ...sizes, file, hashes, verity.root])
    })
  }

  test('finds another root when one byte of the last block differs', () => {
    const file = fileOf(129)
    const before = verityTree(file, salt).verity.root
    const bytes = Buffer.alloc(129 * BLOCK, 1)
    writeFileSync(file, bytes)
    const flat = verityTree(file, salt).verity.root
    bytes[129 * BLOCK - 1] = 2
    writeFileSync(file, bytes)
    assert.equal(new Set([before, flat, verityTree(file, salt).verity.root]).size, 3)
  })

  test('digests the blocks that are not zero, each after its index, then the size', () => {
    const file = path.join(folder, 'sparse.img')
    writeFileSync(file, '')
    truncateSync(file, 1024 * BLOCK)
    const data = Buffer.alloc(BLOCK, 'x')
    const bytes = Buffer.alloc(1024 * BLOCK)
    data.copy(bytes, 7 * BLOCK)
    writeFileSync(file, bytes)
    const number = (value: number): Buffer => {
      const word = Buffer.alloc(8)
      word.writeUInt32LE(value)
      return word
    }
    const expected = createHash('sha256')
      .update(Buffer.concat([number(7), data, number(1024 * BLOCK)]))
      .digest('hex')
    assert.deepEqual(blockDigest(file), { size: 1024 * BLOCK, blocks: `sha256:${expected}` })
  })

  test('refuses a file that is not whole blocks', () => {
    const file = path.join(folder, 'odd.img')
    writeFileSync(file, 'x')
    assert.throws(() => blockDigest(file), /whole number of 4096-byte blocks/u)
  })
})
