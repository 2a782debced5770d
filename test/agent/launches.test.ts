/** Launches that end before anything runs: asked twice, refused in floods, without record or spawn. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Socket } from 'node:net'
import { suite, type TestContext, test } from 'node:test'
import { ApiError } from '../../agent/errors.ts'
import { isPassing } from '../../agent/tasks/give-up.ts'
import { SpawnError } from '../../native/spawn-client.ts'
import { Refusal } from '../../policy/index.ts'
import { afterwards } from '../audit/harness.ts'
import { member, type Reply, startAgent, type TestAgent } from './harness.ts'

interface SilentRegistry {
  readonly host: string
  /** Resolves when somebody has asked for something. */
  readonly asked: Promise<unknown>
  hangUp(): void
}

/** A registry that takes connections and never answers, until it is told to hang up. */
async function silentRegistry(t: TestContext, at = '127.0.0.1:0'): Promise<SilentRegistry> {
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => undefined)
  })
  const asked = once(server, 'connection')
  server.listen(Number(at.split(':')[1]), '127.0.0.1')
  await once(server, 'listening')
  const hangUp = (): void => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  afterwards(t, hangUp)
  const address = server.address()
  const port = typeof address === 'object' && address !== null ? address.port : 0
  return { host: `127.0.0.1:${port}`, asked, hangUp }
}

/** Nothing listens on port 9 of loopback; who asks is told so at once. */
const NOWHERE = '127.0.0.1:9'

const launch = (image: string, key: string, more: object = {}) =>
  ({
    method: 'POST',
    path: '/v1/tenants/acme/pods',
    body: { image, ...more },
    headers: { 'idempotency-key': key },
  }) as const

async function records(agent: TestAgent, type: string): Promise<readonly unknown[]> {
  const reply = await agent.operator({ path: '/v1/audit/records?limit=1000' })
  const all = member(reply.json, 'records')
  assert.ok(Array.isArray(all), reply.text)
  return all
    .map((entry: unknown) => member(entry, 'record'))
    .filter((record) => member(record, 'type') === type)
}

const codeOf = (reply: Reply): unknown => member(reply.json, 'code')

suite('agent/launch idempotency', () => {
  test('needs a key', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const { headers: _none, ...call } = launch('registry.example/x:1', '')
    const reply = await agent.tenant(token, call)
    assert.equal(reply.status, 400)
    assert.equal(codeOf(reply), 'IDEMPOTENCY_KEY_MISSING')
  })

  test('gives the same answer to the same request, and makes one pod', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const first = await agent.tenant(token, launch('no reference', 'k'))
    const second = await agent.tenant(token, launch('no reference', 'k'))
    assert.equal(codeOf(first), 'IMAGE_REFERENCE_INVALID')
    assert.equal(second.status, first.status)
    assert.equal(second.text, first.text)
    assert.equal(second.type, first.type)
    const listed = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
    const pods = member(listed.json, 'pods')
    assert.ok(Array.isArray(pods) && pods.length === 1)
  })

  test('refuses the key with another body, and keeps keys of different callers apart', async (t) => {
    const agent = await startAgent(t, { insecureRegistries: [NOWHERE] })
    const token = await agent.onboard('acme')
    await agent.tenant(token, launch('no reference', 'k'))
    const other = await agent.tenant(token, launch(`${NOWHERE}/x:2`, 'k'))
    assert.equal(other.status, 422)
    assert.equal(codeOf(other), 'IDEMPOTENCY_KEY_REUSED')
    const operator = await agent.operator(launch(`${NOWHERE}/x:2`, 'k'))
    assert.equal(codeOf(operator), 'REGISTRY_UNAVAILABLE')
  })

  test('answers 409 while the first is on its way, also after the first caller has gone', async (t) => {
    const registry = await silentRegistry(t)
    const agent = await startAgent(t, { insecureRegistries: [registry.host] })
    const token = await agent.onboard('acme')
    const first = agent.tenant(token, launch(`${registry.host}/x:1`, 'k'))
    await registry.asked
    const second = await agent.tenant(token, launch(`${registry.host}/x:1`, 'k'))
    assert.equal(second.status, 409)
    assert.equal(codeOf(second), 'IDEMPOTENCY_IN_FLIGHT')
    registry.hangUp()
    assert.equal(codeOf(await first), 'REGISTRY_UNAVAILABLE')
  })

  test('does not keep an answer that passes: the same request is then tried anew', async (t) => {
    const registry = await silentRegistry(t)
    const agent = await startAgent(t, { insecureRegistries: [registry.host] })
    const token = await agent.onboard('acme')
    const first = agent.tenant(token, launch(`${registry.host}/x:1`, 'k'))
    await registry.asked
    registry.hangUp()
    assert.equal(codeOf(await first), 'REGISTRY_UNAVAILABLE')
    const connected = await silentRegistry(t, registry.host)
    const second = agent.tenant(token, launch(`${registry.host}/x:1`, 'k'))
    const next = await Promise.race([
      connected.asked.then(() => 'asked'),
      second.then(() => 'answered'),
    ])
    connected.hangUp()
    assert.equal(next, 'asked')
    assert.equal(codeOf(await second), 'REGISTRY_UNAVAILABLE')
  })

  test('keeps the answer when nobody knows what spawn did, or when it would be the same', () => {
    const timeout = new SpawnError('SPAWN_TIMEOUT', 'no answer')
    const failed = new ApiError('LAUNCH_FAILED', 'x')
    assert.equal(isPassing('start', timeout, failed), false)
    assert.equal(isPassing('start', new SpawnError('SPAWN_GONE', 'x'), failed), false)
    assert.equal(isPassing('start', new Error('the store'), new ApiError('INTERNAL', 'x')), false)
    assert.equal(isPassing('start', new SpawnError('HOST_FULL', 'x'), failed), true)
    assert.equal(isPassing('intent', timeout, failed), true)
    const never = new Refusal('ISOLATION_NOT_AVAILABLE', 'x', {})
    assert.equal(isPassing('decide', never, never), false)
    const unsigned = new Refusal('IMAGE_UNSIGNED', 'x', {})
    assert.equal(isPassing('decide', unsigned, unsigned), false)
    const quota = new Refusal('QUOTA_EXCEEDED', 'x', {})
    assert.equal(isPassing('reserve', quota, quota), true)
  })
})

suite('agent/launch at the end of the agent', () => {
  test('lets a launch come to its answer, and refuses those that come after', async (t) => {
    const registry = await silentRegistry(t)
    const agent = await startAgent(t, { insecureRegistries: [registry.host] })
    const token = await agent.onboard('acme')
    const first = agent.tenant(token, launch(`${registry.host}/x:1`, 'a'))
    await registry.asked
    const before = await records(agent, 'launch.refused')
    const ended = agent.end()
    const late = await agent.tenant(token, launch(`${registry.host}/x:1`, 'b'))
    assert.equal(late.status, 503, late.text)
    assert.equal(codeOf(late), 'SHUTTING_DOWN')
    assert.equal((await agent.tenant(token, { path: '/v1/tenants/acme/pods' })).status, 200)
    assert.equal((await records(agent, 'launch.refused')).length, before.length)
    registry.hangUp()
    assert.equal(codeOf(await first), 'REGISTRY_UNAVAILABLE')
    await ended
    await agent.again()
    const listed = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
    assert.equal(member(listed.json, 'pods', 'length'), 1)
  })
})

suite('agent/launch records', () => {
  test('records the first refusal at once, and a flood of the same as one with its count', async (t) => {
    const agent = await startAgent(t, { insecureRegistries: [NOWHERE] })
    const token = await agent.onboard('acme')
    for (let index = 0; index < 5; index += 1) {
      await agent.tenant(token, launch(`${NOWHERE}/x:${index}`, `k${index}`))
    }
    const before = await records(agent, 'launch.refused')
    assert.equal(before.length, 1)
    assert.equal(member(before[0], 'folded', 'count'), 1)
    const pods = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
    assert.equal(Object(member(pods.json, 'pods')).length, 1)
    await agent.end()
    await agent.again()
    const after = await records(agent, 'launch.refused')
    assert.deepEqual(
      after.map((record) => member(record, 'folded', 'count')),
      [1, 4],
    )
    assert.equal(member(after[1], 'refusal', 'code'), 'REGISTRY_UNAVAILABLE')
    assert.equal(member(after[1], 'tenant'), 'acme')
  })

  test('folds each caller and each reason by itself', async (t) => {
    const agent = await startAgent(t, { insecureRegistries: [NOWHERE] })
    const token = await agent.onboard('acme')
    await agent.tenant(token, launch(`${NOWHERE}/x:1`, 'a'))
    await agent.tenant(token, launch('not a reference', 'b'))
    await agent.operator(launch(`${NOWHERE}/x:1`, 'c'))
    const found = await records(agent, 'launch.refused')
    assert.deepEqual(
      found.map((record) => [member(record, 'actor', 'kind'), member(record, 'refusal', 'code')]),
      [
        ['tenant', 'REGISTRY_UNAVAILABLE'],
        ['tenant', 'IMAGE_REFERENCE_INVALID'],
        ['operator', 'REGISTRY_UNAVAILABLE'],
      ],
    )
  })

  test('a tenant reads its own receipts, and they verify', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const { json } = await agent.operator({ path: '/v1/audit/records/0' })
    assert.equal(member(json, 'record', 'type'), 'log.genesis')
    const receipt = await agent.operator({ path: '/v1/audit/records/0/receipt' })
    assert.match(receipt.text, /^c2sp\.org\/tlog-proof@v1\nindex 0\n/u)
    assert.equal((await agent.operator({ path: '/v1/audit/records/999' })).status, 404)
    assert.equal((await agent.tenant(token, { path: '/v1/audit/records/0' })).status, 403)
  })
})

suite('agent/launch without spawn', () => {
  test('says that nothing can be started, and still lists', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    await agent.spawn.close()
    const listed = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
    assert.equal(listed.status, 200)
    const doctor = await agent.operator({ path: '/v1/doctor' })
    const checks = member(doctor.json, 'checks')
    assert.ok(Array.isArray(checks))
    const spawn: unknown = checks.find((check: unknown) => member(check, 'id') === 'spawn')
    assert.equal(member(spawn, 'status'), 'failed')
  })
})
