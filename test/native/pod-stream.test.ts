/** Frames between agent and VMM: cut anywhere, they are the same; anything else ends the stream. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { FrameReader, type PodEvent } from '../../native/pod-stream.ts'

function frame(kind: number, payload: Buffer, odd: readonly number[] = [0, 0, 0]): Buffer {
  const header = Buffer.from([kind, ...odd, 0, 0, 0, 0])
  header.writeUInt32LE(payload.length, 4)
  return Buffer.concat([header, payload])
}

const started = frame(66, Buffer.from([7, 0, 0, 0]))
const error = frame(70, Buffer.from([1, 0, ...Buffer.from('no \u001b[31msuch\nfile')]))
const exit = frame(69, Buffer.from([1, 9, 0, 0, 0]))
const events: readonly PodEvent[] = [
  { kind: 'started', guestPid: 7 },
  { kind: 'error', code: 1, text: 'no ?[31msuch?file' },
  { kind: 'exit', how: 'signal', value: 9 },
]

suite('native/pod-stream', () => {
  test('reads the same events however the bytes are cut', () => {
    const bytes = Buffer.concat([started, error, exit])
    for (let size = 1; size <= bytes.length; size += 1) {
      const reader = new FrameReader()
      const found: PodEvent[] = []
      for (let at = 0; at < bytes.length; at += size) {
        found.push(...reader.push(bytes.subarray(at, at + size)))
      }
      assert.deepEqual(found, events, `pieces of ${size}`)
    }
  })

  const wrong: readonly (readonly [string, Buffer])[] = [
    ['a kind that is not for here', frame(67, Buffer.from('stdout'))],
    ['a kind nobody knows', frame(200, Buffer.alloc(0))],
    ['STARTED of another length', frame(66, Buffer.from([1, 2, 3]))],
    ['EXIT of a way nobody knows', frame(69, Buffer.from([3, 0, 0, 0, 0]))],
    ['ERROR without a code', frame(70, Buffer.from([1]))],
    ['a byte that must be zero', frame(66, Buffer.alloc(4), [1, 0, 0])],
    ['a stream that must be zero', frame(66, Buffer.alloc(4), [0, 1, 0])],
  ]
  for (const [what, bytes] of wrong) {
    test(`refuses ${what}`, () => {
      assert.throws(() => new FrameReader().push(bytes), { code: 'POD_STREAM_PROTOCOL' })
    })
  }

  test('refuses a length that it would have to hold, before the bytes come', () => {
    const header = Buffer.from([70, 0, 0, 0, 0xff, 0xff, 0, 0])
    assert.throws(() => new FrameReader().push(header), { code: 'POD_STREAM_PROTOCOL' })
  })
})
