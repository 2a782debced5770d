/**
 * What the agent makes of what its predecessor left. The store, the log and the tasks are the real
 * ones; spawn's side is what it would say after each kind of crash.
 */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { member, startAgent, type TestAgent } from './harness.ts'
import { exit, leave, POD, status } from './left-pod.ts'

interface Outcome {
  readonly pod: unknown
  /** Pods the tenant's quota says are running. */
  readonly used: unknown
  /** Types of the records about the pod. */
  readonly records: readonly unknown[]
  /** Operations spawn was asked for after the restart, without looking. */
  readonly asked: readonly string[]
}

async function outcome(agent: TestAgent): Promise<Outcome> {
  const pod = await agent.operator({ path: `/v1/tenants/acme/pods/${POD}` })
  const tenant = await agent.operator({ path: '/v1/tenants/acme' })
  const log = await agent.operator({ path: '/v1/audit/records' })
  const entries = member(log.json, 'records')
  assert.ok(Array.isArray(entries))
  const looking = new Set(['list', 'describe', 'template'])
  return {
    pod: pod.json,
    used: member(tenant.json, 'quotas', 'pods', 'used'),
    records: entries
      .map((entry: unknown) => member(entry, 'record'))
      .filter((record) => member(record, 'launch_id') === POD)
      .map((record) => member(record, 'type')),
    asked: agent.spawn.requests
      .map((request) => String(request['op']))
      .filter((op) => !looking.has(op)),
  }
}

/**
 * Waits until spawn was asked so many times for what it has. A look begins when all that the one
 * before led to is in the store and the log.
 */
async function looks(agent: TestAgent, times: number): Promise<void> {
  const lists = (): number =>
    agent.spawn.requests.filter((request) => request['op'] === 'list').length
  for (let left = 1200; left > 0 && lists() < times; left -= 1) await pause(25)
  assert.ok(lists() >= times)
}

suite('agent/reconcile', () => {
  for (const state of ['requested', 'launching'] as const) {
    test(`ends a pod that was ${state} when nothing of it runs, and frees its quota`, async (t) => {
      const agent = await startAgent(t)
      await agent.onboard('acme')
      await leave(agent, state)
      await agent.again()
      const { pod, used, records, asked } = await outcome(agent)
      assert.equal(member(pod, 'state'), 'failed')
      assert.equal(member(pod, 'problem', 'code'), 'LAUNCH_FAILED')
      assert.equal(used, 0)
      assert.deepEqual(records, ['launch.orphaned'])
      assert.deepEqual(asked, [])
    })
  }

  test('writes down the end of a pod that ended while nobody looked', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'running')
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
    agent.spawn.answer('forget', () => ({ ok: true }))
    await agent.again()
    const { pod, used, records, asked } = await outcome(agent)
    assert.equal(member(pod, 'state'), 'exited')
    assert.deepEqual(member(pod, 'exit'), exit)
    assert.equal(used, 0)
    assert.equal(records[0], 'launch.exited')
    assert.equal(asked[0], 'forget')
  })

  test('says so when spawn has lost a running pod', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'running')
    await agent.again()
    const { pod, used } = await outcome(agent)
    assert.equal(member(pod, 'exit', 'cause'), 'SPAWN_LOST')
    assert.equal(member(pod, 'exit', 'guest_reported'), false)
    assert.equal(used, 0)
  })

  test('kills what runs and should not, and puts that on record', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'exited')
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('running')] }))
    agent.spawn.answer('kill', () => ({ ok: true }))
    await agent.again()
    const { records, asked } = await outcome(agent)
    assert.deepEqual(asked, ['kill'])
    assert.deepEqual(records, ['launch.orphaned'])
  })

  test('kills a pod that the store never heard of', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await agent.end()
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('running')] }))
    agent.spawn.answer('kill', () => ({ ok: true }))
    await agent.again()
    const asked = agent.spawn.requests.filter((request) => request['op'] === 'kill')
    assert.deepEqual(asked, [{ op: 'kill', pod: POD }])
  })

  test('answers an interrupted request when it is sent again, and starts nothing for it', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'launching')
    await agent.again()
    assert.ok(!agent.spawn.requests.some((request) => request['op'] === 'launch'))
    const listed = await agent.operator({ path: '/v1/tenants/acme/pods' })
    assert.equal(Object(member(listed.json, 'pods')).length, 1)
  })

  test('settles what was left once spawn can be asked', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'launching')
    agent.spawn.answer('list', () => ({ ok: false, code: 'SPAWN_STOPPED', message: 'not yet' }))
    await agent.again()
    const before = await agent.operator({ path: `/v1/tenants/acme/pods/${POD}` })
    assert.equal(member(before.json, 'state'), 'launching')
    agent.spawn.answer('list', () => ({ ok: true, pods: [] }))
    const waited = await agent.operator({
      path: `/v1/tenants/acme/pods/${POD}/wait?timeout_s=30`,
    })
    assert.equal(member(waited.json, 'state'), 'failed')
  })

  test('records no end of a pod while spawn is away', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'running')
    const away = { ok: false, code: 'SPAWN_STOPPING', message: 'it is being restarted' }
    agent.spawn.answer('list', () => away)
    agent.spawn.requests.length = 0
    await agent.again()
    await looks(agent, 3)
    const { pod, records } = await outcome(agent)
    assert.equal(member(pod, 'state'), 'running')
    assert.deepEqual(records, [])
  })

  test('puts the killing on record once, however long spawn goes on listing the pod', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'exited')
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('running')] }))
    agent.spawn.answer('kill', () => ({ ok: true }))
    agent.spawn.requests.length = 0
    await agent.again()
    await looks(agent, 4)
    const { records, asked } = await outcome(agent)
    assert.deepEqual(asked.slice(0, 2), ['kill', 'kill'])
    assert.deepEqual(records, ['launch.orphaned'])
  })

  test('records what it found once, when what comes after that fails and is tried again', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'launching')
    let lists = 0
    agent.spawn.answer('list', () => {
      lists += 1
      const stopped = { ok: false, code: 'SPAWN_STOPPED', message: 'not now' }
      return lists === 2 ? stopped : { ok: true, pods: [] }
    })
    agent.spawn.requests.length = 0
    await agent.again()
    assert.equal(lists, 2)
    await looks(agent, 4)
    const { pod, records } = await outcome(agent)
    assert.equal(member(pod, 'state'), 'failed')
    assert.deepEqual(records, ['launch.orphaned'])
  })
})

suite('agent/stop-all', () => {
  test('asks every pod to stop, and writes its end down before the agent is gone', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'running')
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('running')] }))
    agent.spawn.answer('forget', () => ({ ok: true }))
    agent.spawn.answer('stop', () => {
      agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
      return { ok: true }
    })
    await agent.again()
    await agent.endWithPods()
    const stops = agent.spawn.requests.filter((request) => request['op'] === 'stop')
    assert.deepEqual(stops, [{ op: 'stop', pod: POD, timeout_ms: 10_000 }])
    agent.spawn.answer('list', () => ({ ok: true, pods: [] }))
    await agent.again()
    const { pod, used, records } = await outcome(agent)
    assert.deepEqual(member(pod, 'exit'), exit)
    assert.equal(used, 0)
    assert.deepEqual(records, ['launch.stop_requested', 'launch.exited'])
  })

  test('does not wait for ever for a pod that cannot be stopped', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    await leave(agent, 'running')
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('running')] }))
    await agent.again()
    const begin = performance.now()
    await agent.endWithPods()
    assert.ok(performance.now() - begin < 25_000)
    // Asked once: spawn, which does not know it, is not asked again and again.
    assert.equal(agent.spawn.requests.filter((request) => request['op'] === 'stop').length, 1)
  })
})
