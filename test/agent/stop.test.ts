/** Stops are asked for once on record, and as often as anybody likes of spawn. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { member, type Reply, startAgent, type TestAgent } from './harness.ts'
import { leaveRunning, POD, status } from './left-pod.ts'

const PLACE = `/v1/tenants/acme/pods/${POD}`

async function recordsOf(agent: TestAgent): Promise<readonly unknown[]> {
  const { json } = await agent.operator({ path: '/v1/audit/records?limit=1000' })
  const entries = member(json, 'records')
  assert.ok(Array.isArray(entries))
  return entries
    .map((entry: unknown) => member(entry, 'record'))
    .filter((record) => member(record, 'launch_id') === POD)
}

const stopsOf = (agent: TestAgent): readonly unknown[] =>
  agent.spawn.requests.filter((request) => request['op'] === 'stop')

suite('agent/stop', () => {
  test('writes one record of a pod that is told to stop again and again, and after its end', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    await leaveRunning(agent)
    await agent.again()
    const stop = (ms: number): Promise<Reply> =>
      agent.tenant(token, { method: 'POST', path: `${PLACE}/stop`, body: { timeout_ms: ms } })
    const replies = await Promise.all([stop(9000), stop(9000), stop(9000)])
    replies.push(
      await stop(1),
      await agent.operator({ method: 'POST', path: `${PLACE}/stop`, body: {} }),
    )
    assert.deepEqual(
      replies.map((reply) => reply.status),
      [202, 202, 202, 202, 202],
    )
    // Spawn is told each time: the second may be in more of a hurry.
    assert.equal(stopsOf(agent).length, 5)
    assert.ok(stopsOf(agent).some((request) => member(request, 'timeout_ms') === 1))
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
    const ended = await agent.tenant(token, { path: `${PLACE}/wait?timeout_s=60` })
    assert.equal(member(ended.json, 'state'), 'exited', ended.text)
    assert.equal(member((await stop(1)).json, 'state'), 'exited')
    const records = await recordsOf(agent)
    assert.deepEqual(
      records.map((record) => member(record, 'type')),
      ['launch.stop_requested', 'launch.exited'],
    )
    assert.equal(member(records[1], 'reason'), 'stop')
  })
  test('knows after a restart that a stop is on record, and why the pod then ends', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    await leaveRunning(agent)
    await agent.again()
    const call = { method: 'POST', path: `${PLACE}/stop`, body: {} } as const
    assert.equal((await agent.tenant(token, call)).status, 202)
    await agent.end()
    await agent.again()
    assert.equal((await agent.operator(call)).status, 202)
    assert.equal(stopsOf(agent).length, 2)
    await agent.end()
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
    await agent.again()
    const records = await recordsOf(agent)
    assert.deepEqual(
      records.map((record) => member(record, 'type')),
      ['launch.stop_requested', 'launch.exited'],
    )
    assert.equal(member(records[1], 'reason'), 'stop')
  })
})
