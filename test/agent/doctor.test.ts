/** What `casemate doctor` finds: the agent and its log are real, spawn says what the test has it say. */
import assert from 'node:assert/strict'
import { chmodSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { deviceCheck } from '../../agent/tasks/examine.ts'
import { afterwards, scratch } from '../audit/harness.ts'
import { member, startAgent, type TestAgent } from './harness.ts'
import { DESCRIPTION } from './spawn-peer.ts'

async function check(agent: TestAgent, id: string): Promise<unknown> {
  const { json } = await agent.operator({ path: '/v1/doctor' })
  const checks = member(json, 'checks')
  assert.ok(Array.isArray(checks))
  return checks.find((one: unknown) => member(one, 'id') === id)
}

suite('agent/doctor', () => {
  for (const [mode, status] of [
    [0o600, 'ok'],
    [0o660, 'ok'],
    [0o666, 'failed'],
    [0o604, 'failed'],
    [0o602, 'failed'],
  ] as const) {
    test(`says ${status} of a KVM device of mode 0${mode.toString(8)}`, async (t) => {
      const device = path.join(scratch(t), 'kvm')
      writeFileSync(device, '')
      chmodSync(device, mode)
      const [found] = await deviceCheck(device)
      assert.equal(found?.status, status)
      assert.match(found.detail, new RegExp(`mode 0${mode.toString(8)}`, 'u'))
      if (status === 'failed') assert.match(found.detail, /chmod 0600 .*udev/u)
    })
  }

  test('leaves a KVM device that is missing to the line about KVM', async () => {
    assert.deepEqual(await deviceCheck('/nowhere/kvm'), [])
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
