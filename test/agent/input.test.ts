/** Standard input of a pod: on record before its first byte, one caller's at a time, and no faster than it is read. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { join, resolve } from 'node:path'
import { text } from 'node:stream/consumers'
import { suite, test } from 'node:test'
import { WebSocket } from 'ws'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import { KINDS, TOLD, u32 } from '../../native/pod-frames.ts'
import { member } from './harness.ts'
import { REPOSITORY } from './images/support/image.ts'
import { exitCode, type PodHost, podHost, run } from './pod-host.ts'
import { records } from './stage.ts'

const MAIN = resolve(import.meta.dirname, '../../agent/cli/main.ts')

/** The VMM's end of a pod stream: what came as standard input, and whether it has ended. */
class Reader {
  read = ''
  ended = 0
  readonly #socket: Socket
  #held = Buffer.alloc(0)

  constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#held = Buffer.concat([this.#held, chunk])
      while (this.#held.length >= 8 && this.#held.length >= 8 + this.#held.readUInt32LE(4)) {
        const length = this.#held.readUInt32LE(4)
        const kind = this.#held.readUInt8(0)
        if (kind === KINDS.stdin) this.read += this.#held.toString('utf8', 8, 8 + length)
        if (kind === KINDS.stdinEof) this.ended += 1
        this.#held = this.#held.subarray(8 + length)
      }
    })
  }

  grant(bytes: number): void {
    const header = Buffer.from([TOLD.credit, 0, 0, 0, 4, 0, 0, 0])
    this.#socket.write(Buffer.concat([header, u32(bytes)]))
  }
}

const urlOf = (host: PodHost): string =>
  `ws+unix:${join(host.agent.directory, 'run', AGENT_SOCKET)}:/v1/tenants/acme/pods`

const attached = async (host: PodHost, pod: string): Promise<WebSocket> => {
  const socket = new WebSocket(`${urlOf(host)}/${pod}/input`, ['v5.channel.k8s.io'])
  await once(socket, 'open')
  return socket
}

/** The code of the answer that comes in place of an upgrade; none: there was an upgrade. */
async function refusal(host: PodHost, pod: string): Promise<unknown> {
  const socket = new WebSocket(`${urlOf(host)}/${pod}/input`, ['v5.channel.k8s.io'])
  socket.on('error', () => undefined)
  const answered: Promise<unknown[]> = once(socket, 'unexpected-response')
  const opened = once(socket, 'open').then(() => [null, null])
  const [, answer] = await Promise.race([answered, opened])
  if (answer !== null)
    return member(JSON.parse(await text(answer as NodeJS.ReadableStream)), 'code')
  socket.terminate()
  return 'none'
}

const say = (socket: WebSocket, words: string): void => {
  socket.send(Buffer.concat([Buffer.from([0]), Buffer.from(words)]))
}

/** The last message, once the socket has closed. */
const statusOf = async (socket: WebSocket): Promise<unknown> => {
  let last = ''
  socket.on('message', (data: Buffer) => {
    if (data[0] === 3) last = data.toString('utf8', 1)
  })
  await once(socket, 'close')
  return member(JSON.parse(last), 'status')
}

const opened = async (host: PodHost): Promise<number> =>
  (await records(host.agent)).filter((one) => member(one, 'type') === 'launch.input_opened').length

suite('agent/input', () => {
  test('reaches the pod as fast as it reads, and ends once, for all agents to come', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    const reader = new Reader(host.streamOf(pod))
    const socket = await attached(host, pod)
    assert.equal(await opened(host), 1)
    say(socket, 'x'.repeat(100_000))
    reader.grant(65_536)
    await host.until('a window of it', () => (reader.read.length === 65_536 ? true : null))
    socket.send(Buffer.from([255, 0]))
    assert.equal(reader.ended, 0)
    const status = statusOf(socket)
    reader.grant(65_536)
    assert.equal(await status, 'Success')
    assert.deepEqual([reader.read.length, reader.ended], [100_000, 1])
    assert.equal(await refusal(host, pod), 'INPUT_ENDED')
    await host.agent.end()
    await host.agent.again()
    await host.until('the pod again', async () =>
      (await refusal(host, pod)) === 'INPUT_ENDED' ? true : null,
    )
    assert.equal(await opened(host), 1)
  })

  test('is one caller’s at a time, and stays open when that one goes', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    const reader = new Reader(host.streamOf(pod))
    reader.grant(65_536)
    const first = await attached(host, pod)
    assert.equal(await refusal(host, pod), 'INPUT_TAKEN')
    say(first, 'one ')
    await host.until('the first', () => (reader.read === 'one ' ? true : null))
    first.terminate()
    const second = await host.until('room', () => attached(host, pod).catch(() => null))
    say(second, 'two')
    await host.until('the second', () => (reader.read === 'one two' ? true : null))
    assert.equal(reader.ended, 0)
    const status = statusOf(second)
    host.end(pod, exitCode(0))
    assert.equal(await status, 'Failure')
    assert.equal(await refusal(host, pod), 'POD_STATE_CONFLICT')
  })

  test('has ended for everybody when its end was given, also before the pod has read to it', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    const reader = new Reader(host.streamOf(pod))
    const first = await attached(host, pod)
    say(first, 'x'.repeat(10))
    reader.grant(4)
    await host.until('some of it', () => (reader.read.length === 4 ? true : null))
    first.send(Buffer.from([255, 0]))
    first.ping()
    await once(first, 'pong')
    first.terminate()
    await host.until('its end', async () =>
      (await refusal(host, pod)) === 'INPUT_ENDED' ? true : null,
    )
    assert.equal(reader.ended, 0)
    reader.grant(65_536)
    await host.until('the rest', () => (reader.ended === 1 ? true : null))
    assert.equal(reader.read.length, 10)
    await host.agent.end()
    await host.agent.again()
    await host.until('the pod again', async () =>
      (await refusal(host, pod)) === 'INPUT_ENDED' ? true : null,
    )
  })

  test('holds up who sends more than is read', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    const reader = new Reader(host.streamOf(pod))
    const socket = await attached(host, pod)
    const all = 8 << 20
    for (let sent = 0; sent < all; sent += 65_536) say(socket, 'x'.repeat(65_536))
    reader.grant(65_536)
    await host.until('a window of it', () => (reader.read.length === 65_536 ? true : null))
    // What the agent would take meanwhile, if it took all.
    for (let look = 0; look < 150; look += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await host.inspect(pod)
    }
    assert.ok(socket.bufferedAmount > all / 2, String(socket.bufferedAmount))
    socket.terminate()
  })

  test('is refused like an execution, on record', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    const call = {
      method: 'PATCH',
      path: '/v1/tenants/acme',
      body: { state: 'suspended' },
    } as const
    assert.equal((await host.agent.operator(call)).status, 200)
    assert.equal(await refusal(host, pod), 'TENANT_SUSPENDED')
    const types = new Set((await records(host.agent)).map((one) => member(one, 'type')))
    assert.ok(types.has('exec.refused') && !types.has('launch.input_opened'))
    let asked = 1
    while ((await refusal(host, pod)) === 'TENANT_SUSPENDED') asked += 1 // oxlint-disable-line no-await-in-loop
    assert.equal(await refusal(host, pod), 'TOO_MANY_REQUESTS')
    const refused = (await records(host.agent)).filter(
      (one) => member(one, 'type') === 'exec.refused',
    )
    assert.equal(refused.length, asked)
  })

  test('`run -i` and `attach -i` pass a pipe on, to its end', async (t) => {
    const host = await podHost(t)
    const image = `${host.registry.host}/${REPOSITORY}:latest`
    const place = join(host.agent.directory, 'run', AGENT_SOCKET)
    const casemate = (input: string, ...words: readonly string[]): Promise<unknown> => {
      const child = spawn(process.execPath, [MAIN, '--socket', place, '-t', 'acme', ...words])
      child.stdin.on('error', () => undefined)
      child.stdin.end(input)
      return new Promise((done) => child.once('close', done))
    }
    const ran = casemate('sorted', 'run', '-i', image)
    const { pod } = await host.launches(1)
    const reader = new Reader(host.streamOf(pod))
    reader.grant(65_536)
    await host.until('its end', () => (reader.ended === 1 ? true : null))
    assert.equal(reader.read, 'sorted')
    host.end(pod, exitCode(3))
    assert.equal(await ran, 3)
    const other = await run(host)
    const second = new Reader(host.streamOf(other))
    second.grant(65_536)
    const there = casemate('more', 'attach', '-i', other)
    await host.until('its end', () => (second.ended === 1 ? true : null))
    assert.equal(second.read, 'more')
    host.end(other, exitCode(0))
    assert.equal(await there, 0)
    assert.equal(await casemate('', 'run', '-i', '-d', image), 2)
  })
})
