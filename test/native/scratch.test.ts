/** Scratch disks: equal to their template, sparse, and with the digest that spawn computes. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { createScratch, loadScratchTemplate } from '../../native/scratch.ts'
import { temporary } from './temporary.ts'

const BLOCK = 4096

/** docs/formats.md section 2, written down a second time. */
function blockDigest(bytes: Buffer): string {
  const hash = createHash('sha256')
  const number = Buffer.alloc(8)
  for (let at = 0; at < bytes.length; at += BLOCK) {
    const block = bytes.subarray(at, at + BLOCK)
    if (block.every((byte) => byte === 0)) continue
    number.writeBigUInt64LE(BigInt(at / BLOCK))
    hash.update(number).update(block)
  }
  number.writeBigUInt64LE(BigInt(bytes.length))
  return `sha256:${hash.update(number).digest('hex')}`
}

suite('native/scratch', () => {
  test('copies an empty ext4 without its holes', async (t) => {
    const directory = temporary(t)
    const source = path.join(directory, 'template.img')
    writeFileSync(source, '')
    truncateSync(source, 64 << 20)
    execFileSync('mke2fs', ['-q', '-t', 'ext4', source])
    const template = await loadScratchTemplate(source)
    const copy = path.join(directory, 'copy.img')
    await (await createScratch(copy, template)).close()
    const bytes = readFileSync(copy)
    assert.ok(bytes.equals(readFileSync(source)))
    assert.equal(template.digest, blockDigest(bytes))
    assert.equal(template.size, 64 << 20)
    assert.ok(statSync(copy).blocks * 512 < 16 << 20, 'the copy has no holes')
    assert.equal(statSync(copy).mode & 0o777, 0o600)
  })

  test('counts a block at each place of a read, and none that is zero', async (t) => {
    const source = path.join(temporary(t), 'template.img')
    const bytes = Buffer.alloc(600 * BLOCK)
    for (const block of [0, 255, 256, 511, 599]) bytes.writeUInt8(1, block * BLOCK + 4095)
    writeFileSync(source, bytes)
    const { digest, extents } = await loadScratchTemplate(source)
    assert.equal(digest, blockDigest(bytes))
    assert.equal(extents.length, 5)
  })

  test('refuses what is no whole number of blocks, and never writes over a file', async (t) => {
    const directory = temporary(t)
    const odd = path.join(directory, 'odd')
    writeFileSync(odd, 'odd')
    await assert.rejects(loadScratchTemplate(odd), RangeError)
    const template = { size: BLOCK, digest: '', extents: [] }
    await assert.rejects(createScratch(odd, template), { code: 'EEXIST' })
  })
})
