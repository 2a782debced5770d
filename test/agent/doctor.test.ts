/** What `casemate doctor` finds: the agent and its log are real, spawn says what the test has it say. */
import assert from 'node:assert/strict'
import { chmodSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { afterwards } from '../audit/harness.ts'
import { member, startAgent, type TestAgent } from './harness.ts'
import { layOut } from './host/layout.ts'
import { DESCRIPTION } from './spawn-peer.ts'

async function check(agent: TestAgent, id: string): Promise<unknown> {
  const { json } = await agent.operator({ path: '/v1/doctor' })
  const checks = member(json, 'checks')
  assert.ok(Array.isArray(checks))
  return checks.find((one: unknown) => member(one, 'id') === id)
}

suite('agent/doctor', () => {
  test('says of whatever is not ok how much it matters and what to do', async (t) => {
    const root = layOut(t, { 'proc/meminfo': 'MemAvailable: 1024 kB\n' })
    const agent = await startAgent(t, { surroundings: { root } })
    const { json } = await agent.operator({ path: '/v1/doctor' })
    const checks = Object(member(json, 'checks')) as unknown[]
    const wrong = checks.filter((one) => member(one, 'status') !== 'ok')
    assert.deepEqual(
      wrong.map((one) => [member(one, 'id'), member(one, 'status'), member(one, 'severity')]),
      [
        ['kvm', 'warning', 'warning'],
        ['memory', 'warning', 'warning'],
        ['templates', 'warning', 'warning'],
      ],
    )
    for (const one of wrong) assert.match(String(member(one, 'fix')), /^\p{Lu}.*\.$/u)
    for (const one of checks.filter((fine) => !wrong.includes(fine))) {
      assert.deepEqual([member(one, 'severity'), member(one, 'fix')], [null, null])
    }
    assert.match(String(member(json, 'findings')), /^sha256:/u)
  })

  test('says without spawn what it can', async (t) => {
    const root = layOut(t)
    chmodSync(path.join(root, 'dev/kvm'), 0o666)
    const agent = await startAgent(t, { surroundings: { root } })
    await agent.spawn.close()
    const { json } = await agent.operator({ path: '/v1/doctor' })
    const checks = Object(member(json, 'checks')) as unknown[]
    assert.deepEqual(checks.map((one) => [member(one, 'id'), member(one, 'status')]).slice(0, 3), [
      ['spawn', 'failed'],
      ['kvm-device', 'failed'],
      ['audit', 'ok'],
    ])
    assert.equal(member(json, 'findings'), null)
  })

  test('says of a template that it is being built, that it failed, that it is there', async (t) => {
    const agent = await startAgent(t)
    const waiting: (() => void)[] = []
    const answerAll = (): void => {
      for (const one of waiting.splice(0)) one()
    }
    // Spawn's side would wait for its answers.
    afterwards(t, answerAll)
    await agent.end()
    agent.spawn.answer('template', async () => {
      await new Promise<void>((resolve) => waiting.push(resolve))
      return { ok: false, code: 'TEMPLATE_FAILED', message: 'the guest did not boot' }
    })
    await agent.again()
    const said = async (): Promise<string> =>
      String(member(await check(agent, 'templates'), 'detail'))
    while (!(await said()).startsWith('building')) await new Promise((next) => setImmediate(next))
    const building = await check(agent, 'templates')
    assert.equal(member(building, 'status'), 'warning')
    assert.match(String(member(building, 'detail')), /^building 1 vCPU 128 MiB/u)
    answerAll()
    while ((await said()).startsWith('building')) await new Promise((next) => setImmediate(next))
    assert.match(await said(), /^1 vCPU 128 MiB could not be built/u)
    const digest = `sha256:${'7'.repeat(64)}`
    const built = { memory: digest, memory_size: 1 << 27, state: digest, state_size: 4096 }
    const templates = [{ vcpus: 1, memory_mib: 128, ...built }]
    agent.spawn.answer('describe', () => ({ ...DESCRIPTION, templates }))
    assert.equal(await said(), '1 vCPU 128 MiB')
  })
})
