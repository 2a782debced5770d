/** What a reader would take for right: ratios, and what the runners say. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { noFirecracker } from './firecracker.ts'
import { pair, table } from './pairs.ts'
import { lineOf, ticksOf } from './vm.ts'

suite('bench/peers', () => {
  test('divides our median by theirs, and refuses figures of nothing', () => {
    const found = pair('a', 'ms', { ours: [9, 1, 2], theirs: [8, 3, 4] })
    assert.deepEqual([found.ours.median, found.theirs.median, found.ratio], [2, 4, 0.5])
    assert.equal(pair('a', 'KiB', { ours: [3], theirs: [1] }).ratio, 3)
    assert.throws(() => pair('a', 'ms', { ours: [1], theirs: [] }), RangeError)
  })

  test('writes rows that a page can hold', () => {
    const rows = table([pair('first', 'ms', { ours: [1, 2], theirs: [4, 8] })]).split('\n')
    assert.deepEqual(rows, [
      '| figure | unit | n | ours | min | max | theirs | min | max | ours/theirs |',
      '| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |',
      '| `first` | ms | 2 | 1.5 | 1 | 2 | 6 | 4 | 8 | 0.25 |',
    ])
  })

  test('reads what runners say, and nothing else', () => {
    const said = lineOf('said 4 1500 the guest reset or powered off')
    assert.deepEqual([said.word, said.first, said.last], ['said', 4, 1500])
    assert.equal(said.text, 'the guest reset or powered off')
    assert.equal(lineOf('said 1 1500 ').text, '')
    assert.equal(lineOf('pid 77').first, 77)
    const ended = lineOf('ended 256 9000000000000')
    assert.deepEqual([ended.first, ended.last], [256, 9_000_000_000_000])
    for (const wrong of ['', 'pid', 'pid x', 'ended', 'said no', 'other 1']) {
      assert.throws(() => lineOf(wrong), RangeError, wrong)
    }
  })

  test('counts the ticks of a process whatever its name is', () => {
    const rest = 'S 1 1 1 0 -1 4194304 100 0 0 0 7 5 0 0 20 0 3 0 100 200 300'
    assert.equal(ticksOf(`12 (a) b) (c) ${rest}`), 12)
    assert.ok(ticksOf(readFileSync('/proc/self/stat', 'latin1')) >= 0)
    assert.throws(() => ticksOf('12 (a)'), RangeError)
  })

  test('says in one line why there is nothing to measure beside', () => {
    assert.match(noFirecracker(undefined) ?? '', /^FIRECRACKER is not set/u)
    assert.match(noFirecracker('') ?? '', /^FIRECRACKER is not set/u)
    assert.match(
      noFirecracker(path.relative('', process.execPath)) ?? '',
      /no file by an absolute path/u,
    )
    assert.match(noFirecracker('/no/such/file') ?? '', /no file by an absolute path/u)
    assert.equal(noFirecracker(process.execPath), null)
  })
})
