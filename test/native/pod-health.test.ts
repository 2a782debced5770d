/** HEALTH of a VMM that may have been taken over. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { HealthAllowance, readHealth } from '../../native/pod-health.ts'

const good = Buffer.from('020007000201000040420f0000000000', 'hex')

function changed(at: number, value: number): Buffer {
  const bytes = Buffer.from(good)
  bytes.writeUInt8(value, at)
  return bytes
}

suite('native/pod-health', () => {
  test('reads what is laid out as documented', () => {
    assert.deepEqual(readHealth(Buffer.concat([good, Buffer.from('no\n')])), {
      state: 'unhealthy',
      answer: { how: 'code', value: 7 },
      streak: 258,
      sinceMs: 1,
      output: 'no\n',
    })
    const answers = [
      [1, 9],
      [2, 0],
      [3, 0],
    ].map(([how = 0, value = 0]) => {
      const bytes = changed(1, how)
      bytes.writeUInt8(value, 2)
      return readHealth(bytes)?.answer
    })
    assert.deepEqual(answers, [
      { how: 'signal', value: 9 },
      { how: 'timeout', value: null },
      { how: 'not-asked', value: null },
    ])
  })

  test('takes nothing else for it', () => {
    const wrong = [
      good.subarray(0, 15),
      Buffer.alloc(0),
      changed(0, 3),
      changed(1, 1), // and a signal 7, which is one
      changed(1, 2),
      changed(1, 4),
      changed(3, 1),
      Buffer.concat([good, Buffer.alloc(4097)]),
    ]
    const found = wrong.map((bytes) => readHealth(bytes)?.answer.how ?? null)
    assert.deepEqual(found, [null, null, null, 'signal', null, null, null, null])
    assert.equal(readHealth(Buffer.concat([changed(1, 1).fill(65, 2, 3)])), null)
  })

  test('leaves of output what is text', () => {
    const output = Buffer.from('a\tb\r\u001b[2J\u0085\u202e\u2028\u00e4\xff'.slice(0, -1))
    const text = readHealth(Buffer.concat([good, output, Buffer.from([0xff])]))?.output
    assert.equal(text, 'a\tb??[2J???\u00e4?')
  })

  test('allows what checks can come to for ever, and no flood', () => {
    const steady = new HealthAllowance()
    assert.ok(Array.from({ length: 10_000 }, (_, n) => steady.spend(n * 250)).every(Boolean))
    const flood = new HealthAllowance()
    assert.equal(Array.from({ length: 1000 }, () => flood.spend(5)).filter(Boolean).length, 64)
    assert.equal(flood.spend(130), true)
    assert.equal(flood.spend(131), false)
  })
})
