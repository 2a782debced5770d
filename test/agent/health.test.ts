/** Health of pods: what their guests say of it, what is shown, and what comes of it. The VMM's end is the test's. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { TOLD } from '../../native/pod-frames.ts'
import { member, type Reply } from './harness.ts'
import { becomes, exitCode, ofType, type PodHost, podHost, run } from './pod-host.ts'
import { records } from './stage.ts'

const STATES = ['starting', 'healthy', 'unhealthy']
const CHECK = { tcp: 80, interval_ms: 1000, retries: 2 }
const LONG = 120_000

interface Words {
  readonly state: string
  readonly code?: number
  readonly streak?: number
  /** ms ago. */
  readonly ago?: number
  readonly output?: string | Buffer
}

function payload({ state, code = 0, streak = 0, ago = 0, output = '' }: Words): Buffer {
  const head = Buffer.alloc(16)
  head.writeUInt8(STATES.indexOf(state), 0)
  head.writeUInt8(code, 2)
  head.writeUInt32LE(streak, 4)
  head.writeBigUInt64LE(BigInt(Date.now() - ago) * 1_000_000n, 8)
  return Buffer.concat([head, Buffer.from(output)])
}

function say(host: PodHost, launch: string, bytes: Buffer, kind: number = TOLD.health): void {
  const header = Buffer.alloc(8)
  header.writeUInt8(kind, 0)
  header.writeUInt32LE(bytes.length, 4)
  host.streamOf(launch).write(Buffer.concat([header, bytes]))
}

const tell = (host: PodHost, launch: string, words: Words): void => {
  say(host, launch, payload(words))
}

const shows = (host: PodHost, pod: string, state: string): Promise<unknown> =>
  host.until(`${pod} ${state}`, async () => {
    const found = await host.inspect(pod)
    return member(found, 'health', 'state') === state ? found : null
  })

const wait = (host: PodHost, pod: string, query: string): Promise<Reply> =>
  host.agent.tenant(host.token, { path: `/v1/tenants/acme/pods/${pod}/wait?${query}` })

const codeOf = (reply: Reply): string => `${reply.status} ${String(member(reply.json, 'code'))}`

/** Has the next stop end the pod as an app does that hears it. */
function endsOnStop(host: PodHost, code: number): string[] {
  const stopped: string[] = []
  host.agent.spawn.answer('stop', (request) => {
    const pod = String(request['pod'])
    stopped.push(pod)
    setImmediate(() => host.end(pod, exitCode(code)))
    return { ok: true }
  })
  return stopped
}

suite('agent/health', () => {
  test('shows what a guest says, from the start on, in lists and to filters', async (t) => {
    const host = await podHost(t)
    const plain = await run(host)
    const pod = await run(host, { health: CHECK })
    assert.deepEqual(member(host.started[1]?.spec, 'apps', '0', 'health'), {
      interval_ms: 1000,
      probe: { kind: 'tcp', port: 80 },
      retries: 2,
      start_interval_ms: 5000,
      start_period_ms: 0,
      timeout_ms: 30_000,
    })
    assert.equal(member(host.started[0]?.spec, 'apps', '0', 'health'), null)
    const before = await host.inspect(pod)
    assert.deepEqual(member(before, 'health'), {
      state: 'starting',
      since: member(before, 'started'),
      failing_streak: 0,
      last: null,
    })
    assert.equal(member(await host.inspect(plain), 'health'), null)
    tell(host, pod, { state: 'unhealthy', code: 7, streak: 2, output: 'no\u001b[31m\u202e\n' })
    const ill = member(await shows(host, pod, 'unhealthy'), 'health')
    assert.equal(member(ill, 'failing_streak'), 2)
    assert.deepEqual(member(ill, 'last'), { how: 'code', value: 7, output: 'no?[31m?\n' })
    const listed = async (query: string): Promise<unknown[]> => {
      const reply = await host.agent.tenant(host.token, { path: `/v1/tenants/acme/pods?${query}` })
      return (member(reply.json, 'pods') as unknown[]).map((one) => member(one, 'id'))
    }
    assert.deepEqual(await listed('health=unhealthy'), [pod])
    assert.deepEqual(await listed('health=none'), [plain])
    assert.deepEqual(await listed('health=healthy'), [])
    host.end(pod, exitCode(0))
    assert.equal(member(await becomes(host, pod, 'exited'), 'health'), null)
  })

  test('an agent that is started anew learns it again, and since when', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { health: CHECK })
    tell(host, pod, { state: 'healthy', ago: 50_000 })
    const since = member(await shows(host, pod, 'healthy'), 'health', 'since')
    const words = payload({ state: 'healthy', ago: 50_000 })
    await host.agent.end()
    await host.agent.again()
    assert.equal(member(await host.inspect(pod), 'health', 'state'), 'starting')
    say(host, pod, words)
    const again = member(await shows(host, pod, 'healthy'), 'health', 'since')
    assert.ok(Math.abs(Date.parse(String(again)) - Date.parse(String(since))) < 5000)
  })

  test('waits for what is there, will be, or never will', async (t) => {
    const host = await podHost(t)
    const plain = await run(host)
    assert.equal((await wait(host, plain, 'for=running')).status, 200)
    assert.equal(codeOf(await wait(host, plain, 'for=healthy')), '422 HEALTHCHECK_MISSING')
    assert.equal(codeOf(await wait(host, plain, 'for=better')), '400 BAD_REQUEST')
    const pod = await run(host, { health: CHECK })
    assert.equal(codeOf(await wait(host, pod, 'for=healthy&timeout_s=0')), '408 WAIT_TIMEOUT')
    const waits = wait(host, pod, 'for=healthy')
    tell(host, pod, { state: 'starting', code: 1, streak: 1 })
    tell(host, pod, { state: 'healthy' })
    const reply = await waits
    assert.equal(member(reply.json, 'health', 'state'), 'healthy', reply.text)
    tell(host, pod, { state: 'unhealthy', code: 1, streak: 2 })
    await shows(host, pod, 'unhealthy')
    const inVain = wait(host, pod, 'for=healthy')
    host.end(pod, exitCode(0))
    assert.equal(codeOf(await inVain), '409 WAIT_ENDED')
    assert.equal(codeOf(await wait(host, pod, 'for=running')), '409 WAIT_ENDED')
    assert.equal((await wait(host, pod, 'for=exited')).status, 200)
  })

  test('waits for health over a restart of the pod', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { health: CHECK, restart: 'always' })
    const waits = wait(host, pod, 'for=healthy')
    host.end(pod, exitCode(1))
    await becomes(host, pod, 'restarting')
    host.pass(60_000)
    const { pod: second } = await host.launches(2)
    await host.until('its stream', async () =>
      member(await host.inspect(pod), 'state') === 'running' ? true : null,
    )
    tell(host, second, { state: 'healthy' })
    assert.equal(member((await waits).json, 'launch'), second)
  })
})

suite('agent/health: what comes of it', () => {
  test('an unhealthy pod is stopped for its rule, on record before, and its end is no success', async (t) => {
    const host = await podHost(t)
    const stopped = endsOnStop(host, 0)
    const health = { ...CHECK, on_unhealthy: 'restart' }
    const pod = await run(host, { health, restart: 'on-failure' })
    tell(host, pod, { state: 'healthy' })
    await shows(host, pod, 'healthy')
    assert.deepEqual(stopped, [])
    tell(host, pod, { state: 'unhealthy', code: 1, streak: 2, output: 'secret' })
    await becomes(host, pod, 'restarting')
    assert.deepEqual(stopped, [pod])
    const [record, ...more] = await ofType(host, 'launch.unhealthy')
    assert.equal(more.length, 0)
    assert.deepEqual(
      ['launch_id', 'tenant', 'action', 'failing_streak'].map((name) => member(record, name)),
      [pod, 'acme', 'restart', 2],
    )
    assert.equal(JSON.stringify(record).includes('secret'), false, 'a tenant’s words')
    const [exited] = await ofType(host, 'launch.exited')
    assert.equal(member(exited, 'reason'), 'unhealthy')
    assert.deepEqual(await ofType(host, 'launch.stop_requested'), [])
    const types = (await records(host.agent)).map((one) => member(one, 'type'))
    assert.ok(types.indexOf('launch.unhealthy') < types.indexOf('launch.exited'))
    const [start] = member(await host.inspect(pod), 'starts') as unknown[]
    assert.equal(member(start, 'exit', 'value'), 0)
    assert.equal(member(await host.inspect(pod), 'facts', 'unhealthy', 'output'), 'secret')
    host.pass(60_000)
    const second = await host.launches(2)
    assert.equal(member(second.record, 'restart', 'after'), pod)
    assert.equal(member(await becomes(host, pod, 'running'), 'facts', 'unhealthy'), undefined)
  })

  test('a row of restarts goes on until a start was healthy for long', async (t) => {
    const host = await podHost(t)
    endsOnStop(host, 143)
    const health = { ...CHECK, on_unhealthy: 'restart' }
    const pod = await run(host, { health, restart: 'always' })
    const inARow = async (launch: string, words: readonly Words[], count: number) => {
      for (const one of words) tell(host, launch, one)
      const found = await becomes(host, pod, 'restarting')
      assert.equal(member(found, 'restart', 'in_a_row'), count)
      host.pass(60_000)
    }
    const ill = { state: 'unhealthy', code: 1, streak: 2 }
    host.pass(LONG)
    await inARow(pod, [ill], 1)
    const second = (await host.launches(2)).pod
    await becomes(host, pod, 'running')
    host.pass(10 * LONG)
    await inARow(second, [{ state: 'healthy', ago: LONG - 5000 }, ill], 2)
    const third = (await host.launches(3)).pod
    await becomes(host, pod, 'running')
    host.pass(10 * LONG)
    await inARow(third, [{ state: 'healthy', ago: LONG + 5000 }, ill], 1)
    // Who says that it was healthy for longer than it ran is not believed.
    const fourth = (await host.launches(4)).pod
    await becomes(host, pod, 'running')
    await inARow(fourth, [{ state: 'healthy', ago: 10 * LONG }, ill], 2)
  })

  test('an unhealthy pod that is to be stopped is not started again by any rule', async (t) => {
    const host = await podHost(t)
    const stopped = endsOnStop(host, 1)
    const health = { ...CHECK, on_unhealthy: 'stop' }
    const pod = await run(host, { health, restart: 'always' })
    tell(host, pod, { state: 'unhealthy', code: 1, streak: 2 })
    const ended = await becomes(host, pod, 'exited')
    assert.equal(member(ended, 'restart', 'due'), null)
    assert.deepEqual(stopped, [pod])
    assert.equal((await ofType(host, 'launch.unhealthy')).length, 1)
  })

  test('nothing is done to a pod whose launch did not ask for it, or that was told to stop', async (t) => {
    const host = await podHost(t)
    host.agent.spawn.answer('stop', () => ({ ok: true }))
    const idle = await run(host, { health: CHECK, restart: 'always' })
    tell(host, idle, { state: 'unhealthy', code: 1, streak: 2 })
    await shows(host, idle, 'unhealthy')
    const told = await run(host, {
      health: { ...CHECK, on_unhealthy: 'restart' },
      restart: 'always',
    })
    assert.equal((await host.post(`${told}/stop`)).status, 202)
    tell(host, told, { state: 'unhealthy', code: 1, streak: 2 })
    await shows(host, told, 'unhealthy')
    host.end(told, exitCode(0))
    assert.equal(member(await becomes(host, told, 'exited'), 'restart', 'due'), null)
    assert.deepEqual(await ofType(host, 'launch.unhealthy'), [])
    assert.equal(member(await host.inspect(idle), 'state'), 'running')
  })

  test('an agent that ends between record and stop leaves it to the next, with no second record', async (t) => {
    const host = await podHost(t)
    const asked: unknown[] = []
    host.agent.spawn.answer('stop', (request) => {
      asked.push(request['pod'])
      return { ok: false, code: 'SPAWN_BUSY', message: 'not now' }
    })
    const pod = await run(host, {
      health: { ...CHECK, on_unhealthy: 'restart' },
      restart: 'on-failure',
    })
    const words = payload({ state: 'unhealthy', code: 1, streak: 2 })
    say(host, pod, words)
    await host.until('the first try', () => asked[0])
    await host.agent.end()
    await host.agent.again()
    endsOnStop(host, 0)
    say(host, pod, words)
    await becomes(host, pod, 'restarting')
    assert.equal((await ofType(host, 'launch.unhealthy')).length, 1)
    assert.equal(member((await ofType(host, 'launch.exited'))[0], 'reason'), 'unhealthy')
  })

  test('words that are none, or too many, end the stream and not the pod', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { health: CHECK })
    const good = payload({ state: 'healthy' })
    // More of what is none is in test/native/pod-health.test.ts.
    const wrong = [good.subarray(0, 15), Buffer.concat([good, Buffer.alloc(4097)])]
    for (const bytes of wrong) {
      const stream = host.streamOf(pod)
      say(host, pod, bytes)
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await host.until('another stream', () => (host.streamOf(pod) === stream ? null : true))
    }
    const stream = host.streamOf(pod)
    for (let count = 0; count < 1000; count += 1) {
      tell(host, pod, { state: count % 2 === 0 ? 'healthy' : 'starting' })
    }
    await host.until('another stream', () => (host.streamOf(pod) === stream ? null : true))
    tell(host, pod, { state: 'unhealthy', code: 1, streak: 2 })
    assert.equal(member(await shows(host, pod, 'unhealthy'), 'state'), 'running')
  })

  test('refuses what is no check, and what needs one', async (t) => {
    const host = await podHost(t)
    const refused = async (health: object, more: object = {}): Promise<string> =>
      codeOf(await host.launch('acme', undefined, { health, ...more }))
    for (const health of [
      { tcp: 0 },
      { tcp: 65_536 },
      { http: { port: 80, path: 'x' } },
      { http: { port: 80, path: '/a b' } },
      { http: { port: 80, path: '/a\r\nX: y' } },
      { command: [] },
      { command: ['true'], tcp: 80 },
      { command: ['x'.repeat(8193)] },
      { tcp: 80, interval_ms: 999 },
      { tcp: 80, timeout_ms: 3_600_001 },
      { tcp: 80, retries: 0 },
      { tcp: 80, retries: 101 },
      { tcp: 80, on_unhealthy: 'restart' },
      { disabled: true, tcp: 80 },
      { tcp: 80, unknown: 1 },
    ]) {
      // oxlint-disable-next-line no-await-in-loop
      assert.equal(await refused(health), '400 BAD_REQUEST', JSON.stringify(health))
    }
    assert.equal(await refused({ interval_ms: 1000 }), '422 HEALTHCHECK_MISSING')
    assert.equal(
      await refused({ tcp: 80, on_unhealthy: 'restart' }, { restart: 'no' }),
      '400 BAD_REQUEST',
    )
    assert.equal(host.started.length, 0)
    assert.equal(await refused({ disabled: true }), '201 undefined')
  })
})
