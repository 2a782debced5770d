/** A queue of bytes: nothing is lost or doubled, and pieces of a byte cost no more than large ones. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { ByteQueue } from '../../native/byte-queue.ts'

suite('native/byte-queue', () => {
  test('gives what it was given, in order, however it is cut', () => {
    const queue = new ByteQueue()
    let model: Buffer = Buffer.alloc(0)
    for (let step = 0; step < 3000; step += 1) {
      const bytes = Buffer.alloc((step * 7919) % 5000, step & 255)
      queue.append(bytes)
      model = Buffer.concat([model, bytes])
      const first = queue.first((step * 104_729) % 5100)
      assert.ok(first.equals(model.subarray(0, first.length)))
      model = model.subarray(first.length)
      queue.drop(first.length)
      assert.equal(queue.length, model.length)
    }
    assert.ok(queue.first(queue.length).equals(model))
  })

  test('moves what waits seldom, also for pieces of one byte', () => {
    const queue = new ByteQueue()
    queue.append(Buffer.alloc(1 << 20))
    const rooms = new Set<ArrayBufferLike>()
    for (let count = 0; count < 100_000; count += 1) {
      queue.append(Buffer.from([count & 255]))
      queue.drop(count % 2)
      rooms.add(queue.first(1).buffer)
    }
    assert.ok(rooms.size < 4, String(rooms.size))
  })
})
