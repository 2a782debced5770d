/** Frames between agent and VMM: cut anywhere, they are the same; anything else ends the stream. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { exchange } from '../../native/addon.ts'
import { PodFrameReader, readEvent } from '../../native/pod-frames.ts'
import { type PodEvent, PodStream } from '../../native/pod-stream.ts'
import { frameOf } from './fd-answer.ts'
import { temporary } from './temporary.ts'

function frame(kind: number, payload: Buffer, odd: readonly number[] = [0, 0, 0]): Buffer {
  const header = Buffer.from([kind, ...odd, 0, 0, 0, 0])
  header.writeUInt32LE(payload.length, 4)
  return Buffer.concat([header, payload])
}

const started = frame(66, Buffer.from([7, 0, 0, 0]))
const error = frame(70, Buffer.from([1, 0, ...Buffer.from('no \u001b[31msuch\nfile')]))
const exit = frame(69, Buffer.from([1, 9, 0, 0, 0]))
const credit = frame(71, Buffer.from([0, 0, 1, 0]))
const events: readonly PodEvent[] = [
  { kind: 'started', guestPid: 7 },
  { kind: 'error', code: 1, text: 'no ?[31msuch?file' },
  { kind: 'exit', how: 'signal', value: 9 },
  { kind: 'credit', bytes: 65_536 },
]

suite('native/pod-stream', () => {
  test('reads the same events however the bytes are cut', () => {
    const bytes = Buffer.concat([started, error, exit, credit])
    for (let size = 1; size <= bytes.length; size += 1) {
      const reader = new PodFrameReader()
      const found: PodEvent[] = []
      for (let at = 0; at < bytes.length; at += size) {
        found.push(...reader.push(bytes.subarray(at, at + size)).map(readEvent))
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
    [
      'output of no bytes, of which there could be any number',
      frame(67, Buffer.alloc(0), [0, 1, 0]),
    ],
    ['a byte that must be zero', frame(66, Buffer.alloc(4), [1, 0, 0])],
  ]
  for (const [what, bytes] of wrong) {
    test(`refuses ${what}`, () => {
      assert.throws(() => new PodFrameReader().push(bytes).map(readEvent), {
        code: 'POD_STREAM_PROTOCOL',
      })
    })
  }

  test('refuses a length that it would have to hold, before the bytes come', () => {
    const header = Buffer.from([70, 0, 0, 0, 0xff, 0xff, 0, 0])
    assert.throws(() => new PodFrameReader().push(header), { code: 'POD_STREAM_PROTOCOL' })
  })
})

/** A pod stream and the VMM's end of it. */
async function streamPair(t: TestContext): Promise<{ stream: PodStream; vmm: Socket }> {
  const place = path.join(temporary(t), 'stream.sock')
  const server = createServer().listen(place)
  t.after(() => server.close())
  const connected: Promise<Socket[]> = once(server, 'connection')
  const answer = exchange(place, frameOf({ op: 'adopt' }), [], {
    answerMax: 64,
    fdsMax: 0,
    timeoutMs: 10_000,
    keepOpen: true,
  })
  const [vmm] = await connected
  assert.ok(vmm !== undefined)
  t.after(() => vmm.destroy())
  await once(vmm, 'readable')
  vmm.read()
  vmm.write(frameOf({ ok: true }))
  const stream = new PodStream((await answer).connection)
  t.after(() => stream.close())
  return { stream, vmm }
}

suite('native/pod-stream of several apps', () => {
  const at = (place: number): readonly number[] => [0, 0xf8 + place, 0xff]

  test('says which of them it was, and takes no output and no session for one', async (t) => {
    const { stream, vmm } = await streamPair(t)
    const heard: unknown[] = []
    stream.on('app', (event, place) => void heard.push([place, event.kind]))
    stream.on('event', (event) => void heard.push(['pod', event.kind]))
    stream.on('health', (_, place) => void heard.push([place, 'health']))
    const [app, ended] = [Buffer.from([7, 0, 0, 0]), Buffer.from([0, 0, 0, 0, 0])]
    const closed = once(stream, 'close')
    vmm.write(
      Buffer.concat([
        started,
        frame(66, app, at(1)),
        frame(71, app, at(1)),
        frame(73, Buffer.alloc(16), at(7)),
        frame(69, ended, at(1)),
        frame(69, ended),
        frame(67, Buffer.from('output'), at(0)),
      ]),
    )
    const [failure] = await closed
    assert.match(String(failure), /is not for here/u)
    assert.deepEqual(heard, [
      ['pod', 'started'],
      [1, 'started'],
      [7, 'health'],
      [1, 'exit'],
      ['pod', 'exit'],
    ])
  })
})

/** Payload bytes of STDIN frames, and whether STDIN_EOF came. */
async function takeStdin(vmm: Socket, bytes: number): Promise<{ taken: number; eof: boolean }> {
  let held = Buffer.alloc(0)
  let [taken, eof] = [0, false]
  for (;;) {
    if (bytes === 0 ? eof : taken >= bytes) return { taken, eof }
    const chunk: unknown = vmm.read()
    if (chunk === null) await once(vmm, 'readable')
    else held = Buffer.concat([held, chunk as Buffer])
    while (held.length >= 8 && held.length >= 8 + held.readUInt32LE(4)) {
      const length = held.readUInt32LE(4)
      if (held.readUInt8(0) === 3) taken += length
      if (held.readUInt8(0) === 4) eof = true
      held = held.subarray(8 + length)
    }
  }
}

suite('native/pod-stream standard input', () => {
  test('leaves as the app takes it, and its end after all of it', async (t) => {
    const { stream, vmm } = await streamPair(t)
    assert.equal(stream.stdin(Buffer.alloc(100_000)), true)
    stream.stdinEof()
    vmm.write(credit)
    assert.deepEqual(await takeStdin(vmm, 65_536), { taken: 65_536, eof: false })
    vmm.write(credit)
    const rest = await takeStdin(vmm, 100_000 - 65_536)
    assert.equal(rest.taken, 100_000 - 65_536)
    if (!rest.eof) assert.equal((await takeStdin(vmm, 0)).eof, true)
  })

  test('says when enough is waiting', async (t) => {
    const { stream } = await streamPair(t)
    assert.equal(stream.stdin(Buffer.alloc(1 << 20)), false)
  })

  test('ends when the guest grants more than a window', async (t) => {
    const { stream, vmm } = await streamPair(t)
    const closed = once(stream, 'close')
    vmm.write(Buffer.concat([credit, credit]))
    const [failure] = await closed
    assert.match(String(failure), /more standard input than a window/u)
  })
})
