/** Numbers that a reader would take for right. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { fileSystemOf } from './environment.ts'
import { figure, quantile, ratios, table } from './figures.ts'

const upTo = (count: number): readonly number[] => Array.from({ length: count }, (_, at) => at + 1)

suite('bench/figures', () => {
  test('takes the middle of an odd number of samples, and between the middle two of an even one', () => {
    assert.equal(figure('a', 'ms', [9, 1, 5]).median, 5)
    assert.equal(figure('a', 'ms', [4, 1, 2, 9]).median, 3)
    assert.equal(figure('a', 'ms', [7]).median, 7)
  })

  test('orders samples as numbers', () => {
    const { min, max, median } = figure('a', 'us', [10, 9, 100])
    assert.deepEqual([min, median, max], [9, 10, 100])
  })

  test('gives the sample that 99 in 100 are not above, and none of fewer than 100', () => {
    assert.equal(figure('a', 'us', upTo(100)).p99, 99)
    assert.equal(figure('a', 'us', upTo(1000).toReversed()).p99, 990)
    assert.equal(figure('a', 'us', upTo(99)).p99, null)
    assert.equal(quantile([1, 2, 3, 4], 0.5), 2)
    assert.equal(quantile([1, 2, 3], 0.5), 2)
  })

  test('refuses to make a figure of nothing, or of what is no number', () => {
    for (const samples of [[], [1, Number.NaN], [Infinity]]) {
      assert.throws(() => figure('a', 'ms', samples), RangeError)
    }
  })

  test('keeps four digits', () => {
    assert.equal(figure('a', 'ms', [12_345.678]).median, 12_350)
    assert.equal(figure('a', 'ms', [0.123_456]).median, 0.1235)
  })

  test('writes columns that line up', () => {
    const lines = table([figure('short', 'ms', [1]), figure('much.longer', 'MB/s', upTo(200))])
    assert.deepEqual(lines.split('\n'), [
      'figure       unit    n  median  p99  min  max',
      'short        ms      1       1    -    1    1',
      'much.longer  MB/s  200   100.5  198    1  200',
    ])
  })
})

suite('bench/ratios', () => {
  test('are of what is measured beside somebody, and of the same thing', () => {
    const of = (id: string, median: number) => figure(id, 'ms', [median])
    const figures = [
      of('container.start.casemate', 30),
      of('container.start.runc', 20),
      of('container.stop.casemate', 5),
      of('container.stop.podman', 50),
      of('policy.decide.allowed', 1),
    ]
    assert.deepEqual(ratios(figures), [
      'container.start: casemate/runc 1.50',
      'container.stop: casemate/podman 0.10',
    ])
  })
})

suite('bench/environment', () => {
  const mounts = [
    '/dev/vda / ext4 rw 0 0',
    'tmpfs /tmp tmpfs rw 0 0',
    '/dev/vdb /var/tmp xfs rw 0 0',
    'none /var/tmp/casemate tmpfs rw 0 0',
    '/dev/vdc /var/tmp btrfs rw 0 0',
  ].join('\n')

  test('finds the file system of a folder: the longest mount point, the last one mounted there', () => {
    assert.equal(fileSystemOf('/tmp/a', mounts), 'tmpfs')
    assert.equal(fileSystemOf('/tmpfs', mounts), 'ext4')
    assert.equal(fileSystemOf('/var/tmp/casemate-bench', mounts), 'btrfs')
    assert.equal(fileSystemOf('/tmp', ''), 'unknown')
  })
})
