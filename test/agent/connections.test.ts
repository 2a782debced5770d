/** Nobody can hold all connections: which give way to new ones, and which stay. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type ServerResponse } from 'node:http'
import { type AddressInfo, connect, type Socket } from 'node:net'
import { suite, type TestContext, test } from 'node:test'
import { connect as connectTls } from 'node:tls'
import { CONNECTIONS_MAX, Connections, IDLE_MS, UNDER_WAY_KEPT } from '../../agent/connections.ts'
import { OPEN_ANSWERS_MAX, OpenAnswers } from '../../agent/routes/open-answers.ts'
import { parseTenantId } from '../../policy/index.ts'
import { afterwards } from '../audit/harness.ts'
import { startAgent, type TestAgent } from './harness.ts'
import { leaveRunning, POD, status } from './left-pod.ts'

/** A connection of a caller's, with all that came on it. */
interface Line {
  readonly socket: Socket
  said(): string
  /** Resolves when that has come; rejects when the connection ends before. */
  heard(what: RegExp): Promise<void>
  /** Resolves when it has ended, however. */
  readonly ended: Promise<void>
}

function lineOf(t: TestContext, socket: Socket): Line {
  let said = ''
  socket.on('error', () => undefined)
  socket.on('data', (chunk: Buffer) => (said += chunk.toString('latin1')))
  afterwards(t, () => socket.destroy())
  const ended = new Promise<void>((resolve) => {
    socket.once('close', () => {
      resolve()
    })
  })
  const heard: Line['heard'] = (what) =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (!what.test(said)) return
        socket.off('data', look)
        resolve()
      }
      socket.on('data', look)
      socket.once('close', () => {
        reject(new Error(`closed after ${JSON.stringify(said)}`))
      })
      look()
    })
  return { socket, said: () => said, heard, ended }
}

const many = <T>(count: number, make: () => T): readonly T[] => Array.from({ length: count }, make)

interface Place {
  readonly clock: { nowMs: number }
  /** A connection that says nothing. */
  silent(): Promise<Line>
  /** Asks, and is answered: in part when it is a known caller who holds on to it, else whole. */
  ask(line: Line, caller?: string, what?: string): Promise<void>
  /** Writes to every log that is followed. */
  log(text: string): void
}

/** A server of Node's whose connections are counted; time passes by itself nowhere. */
async function counting(t: TestContext, max: number): Promise<Place> {
  const clock = { nowMs: 1000 }
  const connections = new Connections(max, () => clock.nowMs)
  const open = new OpenAnswers()
  const logs: ServerResponse[] = []
  const server = createServer((request, response) => {
    connections.touch(request.socket)
    const caller = request.headers['x-caller']
    if (typeof caller !== 'string') {
      response.end('answered')
      return
    }
    connections.begin(request.socket, caller, response)
    if (request.url === '/log') {
      open.begin(parseTenantId(caller), response)
      logs.push(response)
    }
    response.write('held')
  })
  server.on('connection', (socket: Socket) => {
    connections.add(socket)
  })
  server.setMaxListeners(0)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  afterwards(t, () => {
    server.closeAllConnections()
    server.close()
  })
  const { port } = server.address() as AddressInfo
  return {
    clock,
    silent: async () => {
      const line = lineOf(t, connect(port, '127.0.0.1'))
      // Both ends: the server's end comes to it in the order of accept.
      await Promise.all([once(line.socket, 'connect'), once(server, 'connection')])
      return line
    },
    log: (text) => {
      for (const one of logs) one.write(text)
    },
    ask: async (line, caller, what = '/') => {
      const times = line.said().split('HTTP/1.1').length
      const header = caller === undefined ? '' : `x-caller: ${caller}\r\n`
      line.socket.write(`GET ${what} HTTP/1.1\r\nhost: x\r\n${header}\r\n`)
      await line.heard(new RegExp(`(?:HTTP.*(?:held|answered).*){${times}}`, 'su'))
    },
  }
}

/** Those that still are answered, of lines that hold nothing. */
async function alive(on: Place, lines: readonly Line[]): Promise<readonly boolean[]> {
  const asked = lines.map((line) =>
    on.ask(line).then(
      () => true,
      () => false,
    ),
  )
  return await Promise.all(asked)
}

suite('agent/connections: who gives way', () => {
  test('the one that is idle for longest, whatever it sends without asking something', async (t) => {
    const on = await counting(t, 4)
    const answered = await on.silent()
    const silent = await on.silent()
    const trickling = await on.silent()
    const holding = await on.silent()
    await on.ask(holding, 'acme')
    on.clock.nowMs += IDLE_MS * 2
    await on.ask(answered)
    trickling.socket.write('GET / HTTP/1.1\r\nhost')
    on.clock.nowMs += IDLE_MS * 2
    trickling.socket.write(': x\r\n')
    const first = await on.silent()
    await silent.ended
    on.clock.nowMs += IDLE_MS
    const second = await on.silent()
    await trickling.ended
    const third = await on.silent()
    await answered.ended
    assert.deepEqual(await alive(on, [first, second, third]), [true, true, true])
    assert.equal(holding.socket.closed, false)
  })

  test('of who holds many requests before one that has just come, the oldest, and some stay', async (t) => {
    const on = await counting(t, UNDER_WAY_KEPT + 3)
    const acme = await Promise.all(many(UNDER_WAY_KEPT + 2, () => on.silent()))
    for (const line of acme) await on.ask(line, 'acme')
    const other = await on.silent()
    await on.ask(other, 'other')
    const newcomers = [await on.silent(), await on.silent()]
    await Promise.all([acme[0]?.ended, acme[1]?.ended])
    // Nobody has too many now: of those that are nobody's yet the first gives way.
    newcomers.push(await on.silent())
    await newcomers[0]?.ended
    assert.deepEqual(await alive(on, newcomers.slice(1)), [true, true])
    const held = [...acme.slice(2), other]
    assert.ok(held.every((line) => !line.socket.closed))
    // When all are taken by callers with few, it is the newcomer.
    for (const line of newcomers.slice(1)) await on.ask(line, 'third')
    const late = await on.silent()
    await late.ended
    assert.ok([...held, ...newcomers.slice(1)].every((line) => !line.socket.closed))
  })

  test('never a log that is followed, also where its caller holds the most', async (t) => {
    const logs = 5
    const on = await counting(t, logs + UNDER_WAY_KEPT + 1)
    const followed = await Promise.all(many(logs, () => on.silent()))
    for (const line of followed) await on.ask(line, 'acme', '/log')
    const held = await Promise.all(many(UNDER_WAY_KEPT + 1, () => on.silent()))
    for (const line of held) await on.ask(line, 'acme')
    on.clock.nowMs += IDLE_MS
    const newcomer = await on.silent()
    await held[0]?.ended
    await on.ask(newcomer, 'other')
    // Now nothing may give way: those that are left are few, and logs.
    const late = await on.silent()
    await late.ended
    on.log('and more')
    await Promise.all(followed.map((line) => line.heard(/and more/u)))
  })

  test('not one that is in use again, nor for connections that have closed', async (t) => {
    const on = await counting(t, 2)
    const [one, two] = [await on.silent(), await on.silent()]
    on.clock.nowMs += IDLE_MS
    await on.ask(one)
    const more = await on.silent()
    await two.ended
    more.socket.destroy()
    await more.ended
    // The server has seen the end when it has seen this.
    await on.ask(one)
    const again = await on.silent()
    assert.deepEqual(await alive(on, [one, again]), [true, true])
  })
})

const overTls = (t: TestContext, { httpsPort }: TestAgent): Line =>
  lineOf(t, connectTls({ port: httpsPort, host: '127.0.0.1', rejectUnauthorized: false }))

const overTcp = (t: TestContext, { httpsPort }: TestAgent): Line =>
  lineOf(t, connect(httpsPort, '127.0.0.1'))

/** The head of a request of the tenant's. */
const head = (method: string, place: string, token: string): string =>
  `${method} ${place} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${token}\r\n`

/** A new connection on which the tenant asks for itself, and is answered. It stays. */
async function served(t: TestContext, agent: TestAgent, token: string): Promise<Line> {
  const line = overTls(t, agent)
  line.socket.write(`${head('GET', '/v1/tenants/other', token)}\r\n`)
  await line.heard(/^HTTP\/1.1 200 .*"id":"other"/su)
  return line
}

suite('agent/connections over HTTPS', () => {
  test('are not to be had by holding all of them and saying nothing, or nothing whole', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('other')
    const first = overTcp(t, agent)
    await once(first.socket, 'connect')
    const silent = many(CONNECTIONS_MAX / 4 - 1, () => overTcp(t, agent))
    // The beginning of a ClientHello, and of a request.
    const shaking = many(CONNECTIONS_MAX / 4, () => overTcp(t, agent))
    for (const { socket } of shaking) socket.write(Buffer.from('16030100ff0100', 'hex'))
    const slow = many(CONNECTIONS_MAX / 2, () => overTls(t, agent))
    await Promise.all(slow.map(({ socket }) => once(socket, 'secureConnect')))
    for (const { socket } of slow) socket.write(head('GET', '/v1/tenants/other', token))
    await served(t, agent, token)
    await first.ended
    const newcomers = []
    for (let left = 20; left > 0; left -= 1) newcomers.push(await served(t, agent, token))
    // The other listener has its own.
    assert.equal((await agent.operator({ path: '/v1/tenants' })).status, 200)
    // In the order in which they came, and nobody else.
    await Promise.all(silent.slice(0, newcomers.length).map(({ ended }) => ended))
    const others = [...silent.slice(newcomers.length), ...shaking, ...slow, ...newcomers]
    assert.ok(others.every(({ socket }) => !socket.closed))
  })

  test('are not to be had by one tenant’s requests under way, and who waits is not cut off', async (t) => {
    const agent = await startAgent(t)
    const [token, other] = [await agent.onboard('acme'), await agent.onboard('other')]
    await leaveRunning(agent)
    await agent.again()
    const place = `/v1/tenants/acme/pods/${POD}`
    const waiting = many(OPEN_ANSWERS_MAX, () => overTls(t, agent))
    for (const { socket } of waiting) {
      socket.write(`${head('GET', `${place}/wait?timeout_s=600`, token)}\r\n`)
    }
    const ask = { path: `${place}/wait?timeout_s=0` }
    while ((await agent.tenant(token, ask)).status !== 429) continue
    // Bodies that never come.
    const slow = many(CONNECTIONS_MAX - OPEN_ANSWERS_MAX, () => overTls(t, agent))
    const body = 'content-type: application/json\r\ncontent-length: 9\r\nidempotency-key: k\r\n\r\n'
    for (const { socket } of slow) {
      socket.write(`${head('POST', '/v1/tenants/acme/pods', token)}${body}`)
    }
    await Promise.all(slow.map(({ socket }) => once(socket, 'secureConnect')))
    // All at once, so that each of them needs a place of its own.
    await Promise.all(many(40, () => served(t, agent, other)))
    assert.ok(waiting.every(({ socket }) => !socket.closed))
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
    await Promise.all(waiting.map((line) => line.heard(/^HTTP\/1.1 200 .*"state":"exited"/su)))
  })
})
