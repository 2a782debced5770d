/** What the agent puts on record of templates: the log is real, spawn says what the test has it say. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { member, startAgent, type TestAgent } from './harness.ts'
import { DESCRIPTION } from './spawn-peer.ts'

const digest = (digit: string): string => `sha256:${digit.repeat(64)}`
const template = {
  vcpus: 1,
  memory_mib: 128,
  memory: digest('7'),
  memory_size: 1 << 27,
  state: digest('8'),
  state_size: 4096,
}

/** Types of the records about templates, oldest first; waits for as many as `count`. */
async function recorded(agent: TestAgent, count: number): Promise<readonly unknown[]> {
  for (;;) {
    const { json } = await agent.operator({ path: '/v1/audit/records?limit=1000' })
    const records = member(json, 'records')
    assert.ok(Array.isArray(records))
    const types = records
      .map((one: unknown) => member(one, 'record'))
      .filter((one) => String(member(one, 'type')).startsWith('template.'))
    if (types.length >= count) return types
    await new Promise((next) => setImmediate(next))
  }
}

suite('agent/templates', () => {
  test('puts on record what was built, what spawn kept on disk, and what it still had', async (t) => {
    const agent = await startAgent(t)
    await agent.end()
    agent.spawn.answer('template', () => ({ ok: true, kept: false, template }))
    await agent.again()
    const [built] = await recorded(agent, 1)
    assert.equal(member(built, 'type'), 'template.built')
    assert.equal(member(built, 'memory'), template.memory)
    assert.equal(member(built, 'init_root'), member(DESCRIPTION, 'init', 'verity', 'root'))
    await agent.end()
    agent.spawn.answer('template', () => ({ ok: true, kept: true, template }))
    await agent.again()
    const [, kept] = await recorded(agent, 2)
    const { type, ...facts } = Object(kept)
    assert.equal(type, 'template.kept')
    assert.equal(facts.state, template.state)
    await agent.end()
    agent.spawn.answer('describe', () => ({ ...DESCRIPTION, templates: [template] }))
    agent.spawn.answer('template', () => ({ ok: false, code: 'REQUEST', message: 'not asked' }))
    await agent.again()
    const [, , still] = await recorded(agent, 3)
    assert.equal(member(still, 'type'), 'template.kept')
  })
})
