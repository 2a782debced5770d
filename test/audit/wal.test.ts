import assert from 'node:assert/strict'
import { readdirSync, readFileSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { Wal } from '../../audit/store/wal.ts'
import {
  BLOCK_BYTES,
  batchBytes,
  CHAIN_START,
  encodeBatch,
  encodeSegment,
  SegmentCorrupt,
  scanSegment,
} from '../../audit/wal-format.ts'
import { scratch } from './harness.ts'

const SEGMENT = 65_536
const entryOf = (index: number): Buffer => Buffer.from(`{"n":${index},"pad":"${'x'.repeat(800)}"}`)

/** A segment with batches of these numbers of entries, and where each batch begins. */
function build(counts: readonly number[]): { readonly bytes: Buffer; readonly at: number[] } {
  const bytes = Buffer.alloc(SEGMENT)
  encodeSegment({ index: 0, chain: CHAIN_START }).copy(bytes)
  let next = { index: 0, chain: CHAIN_START }
  let end = BLOCK_BYTES
  const at: number[] = []
  for (const count of counts) {
    const entries = Array.from({ length: count }, (_, place) => entryOf(next.index + place))
    const batch = encodeBatch(next, entries)
    assert.equal(batch.bytes.length, batchBytes(entries))
    batch.bytes.copy(bytes, end)
    at.push(end)
    end += batch.bytes.length
    next = { index: next.index + count, chain: batch.chain }
  }
  return { bytes, at: [...at, end] }
}

function flip(bytes: Buffer, position: number): Buffer {
  const changed = Buffer.from(bytes)
  changed.writeUInt8(changed.readUInt8(position) ^ 0x10, position)
  return changed
}

suite('audit/wal-format', () => {
  test('reads the batches it writes', () => {
    const { bytes, at } = build([1, 7, 2])
    const content = scanSegment(bytes)
    assert.deepEqual(
      content.entries,
      Array.from({ length: 10 }, (_, index) => entryOf(index)),
    )
    assert.equal(content.end, at[3])
    assert.equal(content.next.index, 10)
    assert.equal(content.tornBytes, 0)
  })

  test('cuts a torn last batch wherever it was torn, and nothing before it', () => {
    const { bytes, at } = build([1, 2, 5])
    const [, , from = 0, to = 0] = at
    // Without its padding, which is zero and cannot be missed.
    const used = bytes.subarray(from, to).findLastIndex((byte) => byte !== 0)
    for (let kept = 0; kept < used; kept += 512) {
      const torn = Buffer.concat([bytes.subarray(0, from + kept), Buffer.alloc(SEGMENT)])
      const content = scanSegment(torn.subarray(0, SEGMENT))
      assert.equal(content.entries.length, 3)
      assert.equal(content.end, from)
      assert.equal(content.tornBytes > 0, kept > 0)
    }
  })

  test('refuses a damaged batch that has a good one behind it, whichever byte was changed', () => {
    const { bytes, at } = build([1, 1, 1])
    const [first = 0, , last = 0] = at
    for (let position = first; position < last; position += 1) {
      assert.throws(() => scanSegment(flip(bytes, position)), SegmentCorrupt, `byte ${position}`)
    }
  })

  test('refuses every changed byte of the header', () => {
    const { bytes } = build([1])
    for (let position = 0; position < BLOCK_BYTES; position += 1) {
      assert.throws(() => scanSegment(flip(bytes, position)), SegmentCorrupt)
    }
  })

  test('refuses batches that were left out, repeated or put in another order', () => {
    const { bytes, at } = build([1, 1, 1])
    const [a = 0, b = 0, c = 0, end = 0] = at
    const [one, two, three] = [bytes.subarray(a, b), bytes.subarray(b, c), bytes.subarray(c, end)]
    for (const order of [
      [one, three],
      [one, one],
      [two, one],
      [one, three, two],
    ]) {
      const changed = Buffer.alloc(SEGMENT)
      Buffer.concat([bytes.subarray(0, a), ...order]).copy(changed)
      assert.throws(() => scanSegment(changed), SegmentCorrupt)
    }
  })
})

async function fill(t: TestContext, batches: number): Promise<string> {
  const directory = path.join(scratch(t), 'wal')
  const { wal } = await Wal.open(directory, 0, SEGMENT)
  for (let batch = 0; batch < batches; batch += 1) {
    // oxlint-disable-next-line no-await-in-loop
    await wal.append([entryOf(2 * batch), entryOf(2 * batch + 1)])
  }
  await wal.close()
  return directory
}

const segmentsOf = (directory: string): string[] =>
  readdirSync(directory)
    .filter((name) => name.endsWith('.wal'))
    .toSorted()
    .map((name) => path.join(directory, name))

suite('audit/store/wal', () => {
  test('finds every record again, over several segments', async (t) => {
    const directory = await fill(t, 40)
    assert.ok(segmentsOf(directory).length > 2)
    const { wal, recovered } = await Wal.open(directory, 0, SEGMENT)
    assert.deepEqual(
      recovered.entries,
      Array.from({ length: 80 }, (_, index) => entryOf(index)),
    )
    assert.equal(wal.nextIndex, 80)
    await wal.append([entryOf(80)])
    await wal.close()
  })

  test('writes over a torn tail and goes on', async (t) => {
    const directory = await fill(t, 3)
    const [file = ''] = segmentsOf(directory)
    const bytes = readFileSync(file)
    const { end } = scanSegment(bytes)
    bytes.fill(0xee, end, end + 9000)
    writeFileSync(file, bytes)
    const first = await Wal.open(directory, 0, SEGMENT)
    assert.equal(first.recovered.tornBytes, 9000)
    await first.wal.cutTail(first.recovered.tornBytes)
    await first.wal.append([entryOf(6)])
    await first.wal.close()
    const second = await Wal.open(directory, 0, SEGMENT)
    assert.equal(second.recovered.tornBytes, 0)
    assert.equal(second.recovered.entries.length, 7)
    await second.wal.close()
  })

  test('retires segments that are published, and only whole ones', async (t) => {
    const directory = await fill(t, 40)
    const { wal } = await Wal.open(directory, 0, SEGMENT)
    const before = segmentsOf(directory)
    const second = Number(path.basename(before[1] ?? '', '.wal'))
    await wal.retire(second - 1)
    assert.deepEqual(segmentsOf(directory), before)
    await wal.retire(second)
    assert.deepEqual(segmentsOf(directory), before.slice(1))
    await wal.retire(80)
    assert.deepEqual(segmentsOf(directory), before.slice(-1))
    await wal.close()
    const { wal: again, recovered } = await Wal.open(directory, 0, SEGMENT)
    assert.equal(again.nextIndex, 80)
    assert.ok(recovered.from > 0)
    await again.close()
  })

  test('stays closed after a failure that is over', async (t) => {
    const directory = await fill(t, 1)
    const { wal } = await Wal.open(directory, 0, SEGMENT)
    const [file = ''] = segmentsOf(directory)
    renameSync(file, `${file}.away`)
    await assert.rejects(wal.append([entryOf(2)]), { code: 'AUDIT_UNAVAILABLE' })
    renameSync(`${file}.away`, file)
    await assert.rejects(wal.append([entryOf(2)]), { code: 'AUDIT_UNAVAILABLE', errno: 'ENOENT' })
    await wal.close()
  })

  test('is not begun anew where records are known to have been', async (t) => {
    const directory = path.join(scratch(t), 'wal')
    await assert.rejects(Wal.open(directory, 1, SEGMENT), { code: 'AUDIT_CORRUPT' })
    assert.deepEqual(readdirSync(directory), [])
  })

  const damages: readonly (readonly [string, (files: readonly string[]) => void])[] = [
    ['without a segment in the middle', (files) => rmSync(files[1] ?? '')],
    ['with a segment cut short', (files) => truncateSync(files[0] ?? '', 8192)],
    ['with a segment emptied', (files) => truncateSync(files[1] ?? '', 0)],
    [
      'with a segment under another name',
      (files) => writeFileSync((files[1] ?? '').replace(/\d\.wal$/u, '9.wal'), ''),
    ],
  ]
  for (const [name, damage] of damages) {
    test(`refuses a log ${name}`, async (t) => {
      const directory = await fill(t, 40)
      damage(segmentsOf(directory))
      await assert.rejects(Wal.open(directory, 0, SEGMENT), { code: 'AUDIT_CORRUPT' })
    })
  }
})
