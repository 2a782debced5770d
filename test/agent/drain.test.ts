/** Taking a host out of service: nothing new, what runs ends by the deadline, and it holds over restarts of the agent. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { casemate } from './command-line.ts'
import { member, type Reply } from './harness.ts'
import { becomes, exitCode, ofType, type PodHost, podHost, run } from './pod-host.ts'
import { records } from './stage.ts'

const PATH = '/v1/host/drain'
const LONG = 120_000

const drain = (host: PodHost, body: object = {}): Promise<Reply> =>
  host.agent.operator({ method: 'POST', path: PATH, body })

const status = async (host: PodHost): Promise<unknown> =>
  (await host.agent.operator({ path: PATH })).json

const done = (host: PodHost): Promise<unknown> =>
  host.until('the drain', async () => {
    const found = await status(host)
    return member(found, 'done') === true ? found : null
  })

const counts = (found: unknown): unknown[] =>
  ['left', 'ended', 'killed', 'waiting'].map((name) => member(found, name))

suite('agent/drain', () => {
  test('nothing is launched, pods end, those with a rule wait for its end, all on record', async (t) => {
    const host = await podHost(t)
    const always = await run(host, { restart: 'always' })
    const once = await run(host, {})
    assert.equal(member(await status(host), 'draining'), false)
    assert.equal((await drain(host, { deadline_s: 60 })).status, 202)
    const before = (await records(host.agent)).length
    const refused = await host.launch('acme', 'kept')
    assert.deepEqual([refused.status, member(refused.json, 'code')], [503, 'HOST_DRAINING'])
    assert.deepEqual(counts(await done(host)), [0, 2, 0, 0])
    await becomes(host, once, 'exited')
    await becomes(host, always, 'restarting')
    host.pass(LONG)
    const held = await host.agent.operator({ path: `/v1/tenants/acme/pods/${always}/debug` })
    assert.equal(member(held.json, 'code'), 'HOST_DRAINING', held.text)
    // Over a restart of the agent as well.
    await host.agent.end()
    await host.agent.again()
    assert.equal(member((await host.launch()).json, 'code'), 'HOST_DRAINING')
    assert.deepEqual(counts(await status(host)), [0, 2, 0, 1])
    assert.equal(host.started.length, 2)
    const since = (await records(host.agent)).slice(before).map((record) => member(record, 'type'))
    assert.ok(
      !since.includes('launch.requested') && !since.includes('launch.failed'),
      since.join(' '),
    )
    assert.equal((await host.agent.operator({ method: 'DELETE', path: PATH })).status, 204)
    await host.launches(3)
    await becomes(host, always, 'running')
    // Its key was not used up.
    assert.equal((await host.launch('acme', 'kept')).status, 201)
    const again = await host.agent.operator({ method: 'DELETE', path: PATH })
    assert.equal(again.status, 404)
    const [started] = await ofType(host, 'host.drain_started')
    assert.equal(member(started, 'actor', 'kind'), 'operator')
    const [report] = await ofType(host, 'host.drained')
    assert.deepEqual([member(report, 'ended'), member(report, 'left')], [2, 0])
    assert.equal((await ofType(host, 'host.drain_ended')).length, 1)
  })

  test('what does not end by the deadline is killed, also by the next agent', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { stop_timeout_ms: 600_000 })
    const { spawn } = host.agent
    spawn.answer('stop', () => ({ ok: true }))
    spawn.answer('kill', (request) => {
      host.end(String(request['pod']), { ...exitCode(9), how: 'vmm', cause: 'KILLED' })
      return { ok: true }
    })
    await drain(host, { deadline_s: 3600 })
    const asked = await host.until('a stop', () =>
      spawn.requests.find((request) => request['op'] === 'stop'),
    )
    assert.equal(asked['timeout_ms'], 600_000)
    await host.agent.end()
    assert.equal(spawn.requests.filter((request) => request['op'] === 'kill').length, 0)
    host.pass(3_601_000)
    await host.agent.again()
    assert.deepEqual(counts(await done(host)), [0, 1, 1, 0])
    assert.equal(member(await becomes(host, pod, 'exited'), 'exit', 'cause'), 'KILLED')
    const stops = await ofType(host, 'launch.stop_requested')
    assert.equal(stops.length, 1)
  })

  test('is for operators, and a stop never gets more time than is left', async (t) => {
    const host = await podHost(t)
    await run(host, { stop_timeout_ms: 600_000 })
    for (const method of ['GET', 'DELETE'] as const) {
      const reply = await host.agent.tenant(host.token, { method, path: PATH })
      assert.deepEqual([reply.status, member(reply.json, 'code')], [403, 'FORBIDDEN'])
    }
    const reply = await host.agent.tenant(host.token, { method: 'POST', path: PATH, body: {} })
    assert.equal(reply.status, 403)
    const line = casemate(t, host, '-o', 'json', 'host', 'drain', '--deadline', '30s')
    assert.equal(await line.ended, 0)
    assert.deepEqual(counts(JSON.parse(line.stdout)), [0, 1, 0, 0])
    const stop = host.agent.spawn.requests.find((request) => request['op'] === 'stop')
    assert.ok(Number(stop?.['timeout_ms']) <= 30_000, JSON.stringify(stop))
    assert.equal(await casemate(t, host, 'host', 'undrain').ended, 0)
    assert.equal((await host.launch()).status, 201)
  })
})
