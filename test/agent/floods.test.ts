/** What nobody can use up for others: lines of the agent's log, answers that stay open. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer as createHttpServer, IncomingMessage, ServerResponse } from 'node:http'
import { type AddressInfo, connect, createServer, Socket } from 'node:net'
import path from 'node:path'
import { Writable } from 'node:stream'
import { suite, type TestContext, test } from 'node:test'
import { pino } from 'pino'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import { LiveTokens } from '../../agent/live-tokens.ts'
import {
  OPEN_ANSWERS_ALL_MAX,
  OPEN_ANSWERS_MAX,
  OpenAnswers,
} from '../../agent/routes/open-answers.ts'
import { buildServer } from '../../agent/server.ts'
import { parseTenantId } from '../../policy/index.ts'
import { afterwards } from '../audit/harness.ts'
import { member, type Reply, startAgent, type TestAgent } from './harness.ts'

/** A registry that takes connections and does not answer until it hangs up. */
async function silentRegistry(t: TestContext): Promise<{ host: string; hangUp: () => void }> {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    sockets.push(socket)
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const hangUp = (): void => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  afterwards(t, hangUp)
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { host: `127.0.0.1:${port}`, hangUp }
}

/** Asks until the answer is as hoped for: what is waited for happens on other connections. */
async function until(ask: () => Promise<Reply>, hoped: (status: number) => boolean): Promise<void> {
  for (let left = 500; left > 0; left -= 1) {
    const { status } = await ask()
    if (hoped(status)) return
  }
  assert.fail('it never came to that')
}

const toSocket = (t: TestContext, agent: TestAgent): Socket => {
  const socket = connect(path.join(agent.directory, 'run', AGENT_SOCKET))
  socket.on('error', () => undefined)
  afterwards(t, () => socket.destroy())
  return socket
}

suite('agent/floods', () => {
  test('strangers leave no line in the log, known callers one for each request', async (t) => {
    const lines: string[] = []
    const stream = new Writable({
      write: (chunk: Buffer, _encoding, done) => {
        lines.push(chunk.toString())
        done()
      },
    })
    const tenant = parseTenantId('acme')
    const known = { kind: 'tenant', tenant, subject: 'acme/ci', jti: 'j', expiresMs: 0 } as const
    const app = await buildServer({
      tls: null,
      identity: {
        transport: 'https',
        operators: new Set(),
        verifyToken: async (token) => {
          if (token === 'good') return known
          throw new Error('not reached with this token')
        },
      },
      requestsPerMinute: 2,
      live: new LiveTokens(Date.now),
      log: pino({ level: 'info' }, stream),
      routes: [
        (routes, _options, done) => {
          routes.get('/v1/thing', () => ({}))
          done()
        },
      ],
    })
    afterwards(t, () => app.close())
    const statuses: number[] = []
    const ask = async (url: string, headers: Record<string, string> = {}): Promise<void> => {
      statuses.push((await app.inject({ url, headers })).statusCode)
    }
    await ask('/v1/thing')
    await ask('/v1/nothing')
    await ask('/v1/thing', { authorization: 'nonsense' })
    assert.deepEqual(lines, [])
    await ask('/v1/thing', { authorization: 'Bearer good' })
    await ask('/v1/thing', { authorization: 'Bearer good' })
    await ask('/v1/thing', { authorization: 'Bearer good' })
    await ask('/v1/thing', { authorization: 'Bearer good' })
    assert.deepEqual(statuses, [401, 401, 401, 200, 200, 200, 429])
    assert.equal(lines.length, 3, lines.join(''))
    assert.equal(member(JSON.parse(lines[0] ?? ''), 'who'), 'acme/ci')
  })

  test('a flood of refusals leaves neither pods nor answers behind, only its first', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const launch = (key: string, image: string): Promise<Reply> =>
      agent.tenant(token, {
        method: 'POST',
        path: '/v1/tenants/acme/pods',
        body: { image },
        headers: { 'idempotency-key': key },
      })
    const codeOf = ({ json }: Reply): unknown => member(json, 'code')
    for (const key of ['first', 'second', 'third']) {
      assert.equal(codeOf(await launch(key, '!!')), 'IMAGE_REFERENCE_INVALID')
    }
    assert.equal(codeOf(await launch('first', '??')), 'IDEMPOTENCY_KEY_REUSED')
    assert.equal(codeOf(await launch('third', '??')), 'IMAGE_REFERENCE_INVALID')
    const pods = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
    assert.equal(Object(member(pods.json, 'pods')).length, 1)
  })

  test('a tenant’s open answers are counted, pipelined ones too, and end with the connection', async (t) => {
    const { host, hangUp } = await silentRegistry(t)
    const agent = await startAgent(t, { insecureRegistries: [host] })
    const token = await agent.onboard('acme')
    const other = await agent.onboard('other')
    const launched = agent.tenant(token, {
      method: 'POST',
      path: '/v1/tenants/acme/pods',
      body: { image: `${host}/app:1` },
      headers: { 'idempotency-key': 'k' },
    })
    let pod: unknown
    while (typeof pod !== 'string') {
      const listed = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
      pod = member(listed.json, 'pods', '0', 'id')
    }
    const place = `/v1/tenants/acme/pods/${pod}`
    const socket = toSocket(t, agent)
    const one = `GET ${place}/wait?timeout_s=600 HTTP/1.1\r\nhost: agent\r\n\r\n`
    socket.write(one.repeat(OPEN_ANSWERS_MAX))
    const ask = (): Promise<Reply> => agent.tenant(token, { path: `${place}/wait?timeout_s=0` })
    await until(ask, (status) => status === 429)
    assert.equal((await agent.tenant(token, { path: `${place}/logs` })).status, 429)
    assert.equal((await agent.tenant(token, { path: place })).status, 200)
    const elsewhere = { path: `/v1/tenants/other/pods/${pod}/wait?timeout_s=0` }
    assert.equal((await agent.tenant(other, elsewhere)).status, 404)
    socket.destroy()
    await until(ask, (status) => status === 408)
    hangUp()
    await launched
  })
  test('tenants together leave room: what is scarce is for those that have few open', () => {
    const open = new OpenAnswers()
    const answers: ServerResponse[] = []
    const begin = (tenant: string): void => {
      const answer = new ServerResponse(new IncomingMessage(new Socket()))
      open.begin(tenant, answer)
      answers.push(answer)
    }
    const full = { code: 'TOO_MANY_REQUESTS' }
    for (let count = 0; count < OPEN_ANSWERS_MAX; count += 1)
      for (const who of ['a', 'b']) begin(who)
    // Half of all connections are taken, and so a third tenant does not get as many.
    let some = 0
    assert.throws(() => {
      for (; ; some += 1) begin('c')
    }, full)
    assert.ok(some > 0 && some < OPEN_ANSWERS_MAX, `${some}`)
    let many = 0
    assert.throws(() => {
      for (; ; many += 1) begin(`tenant ${many}`)
    }, full)
    assert.equal(answers.length, OPEN_ANSWERS_ALL_MAX)
    for (const answer of answers) answer.emit('close')
    begin('a')
  })
  test('who has gone before it was known who it is, is not counted for ever', async (t) => {
    const open = new OpenAnswers()
    const server = createHttpServer()
    server.listen(0, '127.0.0.1')
    afterwards(t, () => server.close())
    await once(server, 'listening')
    const asked = new Promise<ServerResponse>((resolve) => {
      server.once('request', (_request, response) => {
        resolve(response)
      })
    })
    const { port } = server.address() as AddressInfo
    const caller = connect(port, '127.0.0.1')
    caller.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
    const answer = await asked
    caller.destroy()
    await once(answer, 'close')
    const times = Array.from({ length: OPEN_ANSWERS_MAX + 1 })
    const gone = times.map(() => open.begin(parseTenantId('acme'), answer))
    assert.ok(gone.every((signal) => signal.aborted))
  })
})
