/** The spawn client against servers that lie: every answer that is not one is refused, and nothing leaks. */
import assert from 'node:assert/strict'
import { closeSync, openSync, readdirSync } from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { frameOf, readAnswer, spawnClient } from '../../native/spawn-client.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { DESCRIPTION } from '../agent/spawn-peer.ts'
import { frameOf as answerFrame, fdPeer } from './fd-answer.ts'
import { temporary } from './temporary.ts'

/** Answers every connection with these bytes, whatever it asks. */
function liar(t: TestContext, bytes: Buffer): string {
  const socket = path.join(temporary(t), 'spawn.sock')
  const server = createServer((connection) => {
    connection.on('error', () => undefined)
    connection.on('data', () => connection.end(bytes))
  }).listen(socket)
  t.after(() => server.close())
  return socket
}

const lies: readonly (readonly [string, Buffer])[] = [
  ['a length of 4 GiB', Buffer.from([255, 255, 255, 255])],
  ['no JSON', answerFrame(Buffer.from('hello'))],
  ['JSON that is not canonical', answerFrame(Buffer.from('{"pods":[], "ok":true}'))],
  ['a member twice', answerFrame(Buffer.from('{"ok":true,"ok":true,"pods":[]}'))],
  ['a list', answerFrame([])],
  ['neither yes nor no', answerFrame({ ok: 1, pods: [] })],
  ['a no without a code', answerFrame({ ok: false, message: 'no' })],
  ['a no with a code that is none', answerFrame({ ok: false, code: 'no code', message: 'no' })],
  ['a yes without its members', answerFrame({ ok: true })],
  ['a member nobody knows', answerFrame({ ok: true, pods: [], more: 1 })],
  ['a pod that is half one', answerFrame({ ok: true, pods: [{ pod: 'x' }] })],
]

suite('native/spawn-client', () => {
  for (const [what, bytes] of lies) {
    test(`refuses ${what}`, async (t) => {
      await assert.rejects(spawnClient(liar(t, bytes)).list(), { code: 'SPAWN_PROTOCOL' })
    })
  }

  for (const part of [[], [1, 0], [5, 0, 0, 0], [5, 0, 0, 0, 123]]) {
    test(`asks again when spawn ends after ${part.length} bytes of its answer`, async (t) => {
      const good = answerFrame({ ok: true, pods: [] })
      const place = path.join(temporary(t), 'spawn.sock')
      let asked = 0
      const server = createServer((socket) => {
        socket.on('error', () => undefined)
        socket.once('data', () => {
          asked += 1
          socket.end(asked < 3 ? Buffer.from(part) : good)
        })
      })
      t.after(() => server.close())
      await new Promise<void>((resolve) => server.listen(place, resolve))
      const client = spawnClient(place)
      assert.deepEqual(await client.list(), [])
      assert.equal(asked, 3)
      asked = -3
      await assert.rejects(client.list(), { code: 'SPAWN_GONE' })
      assert.equal(asked, 0, 'not for ever')
      const file = openSync('/dev/null', 'r')
      const launch = { ticket: 't', record: 'r', spec: 's', image: file, log: file }
      await assert.rejects(client.launch(launch), { code: 'SPAWN_GONE' })
      closeSync(file)
      assert.equal(asked, 1, 'a launch is asked for once')
    })
  }

  test('passes spawn’s own refusals on with their code', async (t) => {
    const no = { ok: false, code: 'TICKET_SPENT', message: 'It was used.' }
    await assert.rejects(spawnClient(liar(t, answerFrame(no))).kill('x'), {
      name: 'SpawnError',
      code: 'TICKET_SPENT',
      message: 'It was used.',
    })
  })

  test('says that nobody is there', async (t) => {
    const client = spawnClient(path.join(temporary(t), 'nobody.sock'))
    await assert.rejects(client.list(), { code: 'SPAWN_UNREACHABLE' })
  })

  test('reads a description, and refuses each member that is missing or of another type', async (t) => {
    const good = await spawnClient(liar(t, answerFrame(DESCRIPTION))).describe()
    assert.equal(good.kvm, 'software')
    for (const name of Object.keys(DESCRIPTION)) {
      const { [name]: _gone, ...without } = DESCRIPTION
      const bad: readonly Canonical[] = [without, { ...DESCRIPTION, [name]: [1] }]
      for (const answer of bad) {
        const asked = spawnClient(liar(t, answerFrame(answer))).describe()
        await assert.rejects(asked, /SpawnError/u, name)
      }
    }
  })

  test('takes a launch only with its pod stream, and keeps no descriptor of a bad one', async (t) => {
    const directory = temporary(t)
    const image = openSync('/dev/null', 'r')
    const call = { ticket: 't', record: 'r', spec: 's', image, log: image }
    const yes = await fdPeer(directory, answerFrame({ ok: true, pid: 7 }), 1)
    const { pid, stream } = await spawnClient(yes.path).launch(call)
    assert.equal(pid, 7)
    closeSync(stream)
    assert.match(await yes.heard, /^2/u)
    const before = readdirSync('/proc/self/fd').length
    const bad = [
      [{ ok: true, pid: 7 }, 0],
      [{ ok: true, pid: 7 }, 2],
      [{ ok: true, pid: 0 }, 1],
      [{ ok: true }, 1],
    ] as const
    for (const [answer, fds] of bad) {
      const peer = await fdPeer(temporary(t), answerFrame(answer), fds)
      await assert.rejects(spawnClient(peer.path).launch(call), { code: 'SPAWN_PROTOCOL' })
      await peer.heard // its own pipes are closed then
    }
    assert.equal(readdirSync('/proc/self/fd').length, before)
    closeSync(image)
  })

  test('sends no request that spawn would have to refuse for its size', () => {
    assert.throws(() => frameOf({ op: 'x', spec: 'y'.repeat(3 << 20) }), {
      code: 'SPAWN_REQUEST_TOO_LARGE',
    })
    assert.deepEqual(readAnswer(Buffer.from('{"ok":true}')), { ok: true })
  })
})
