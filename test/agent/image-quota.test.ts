/** A tenant whose pods have as much of the disk open as one tenant may have: by what the store says. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { IMAGES_BYTES_MAX } from '../../agent/images/limits.ts'
import { launchFacts } from '../../agent/tasks/launch-facts.ts'
import { readDescription } from '../../native/spawn-answers.ts'
import { decide, Refusal } from '../../policy/index.ts'
import { defaults, question } from '../policy/fixtures.ts'
import { member } from './harness.ts'
import { leave, POD, status } from './left-pod.ts'
import { DESCRIPTION } from './spawn-peer.ts'
import { records, stage } from './stage.ts'

/** What a launch writes down of a pod whose root image is so large. */
function factsOf(size: number) {
  const plan = decide(question(), defaults)
  if (plan instanceof Refusal) throw plan
  const rootfs = {
    path: '/nowhere',
    size,
    verity: { data_blocks: 2, root: '11'.repeat(32), salt: '22' },
    rootfsKey: '33'.repeat(32),
    entries: 1,
  }
  const host = readDescription(DESCRIPTION)
  return launchFacts({ plan, host, rootfs, template: null, network: null })
}

suite('agent/image quota', () => {
  test('refuses the launch of another image, on record, until pods are stopped', async (t) => {
    const on = await stage(t)
    const { agent } = on
    await on.admit('other')
    await leave(agent, 'running', factsOf(IMAGES_BYTES_MAX - 4096))
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('running')] }))
    agent.spawn.answer('forget', () => ({ ok: true }))
    await agent.again()
    const workers = (): number =>
      agent.spawn.requests.filter((request) => request['op'] === 'worker').length
    const reply = await on.launch()
    assert.deepEqual([reply.status, member(reply.json, 'code')], [429, 'IMAGE_QUOTA_EXCEEDED'])
    assert.match(String(member(reply.json, 'detail')), /Stop pods or use smaller images/u)
    assert.equal(workers(), 0)
    const refused = (await records(agent)).find(
      (record) => member(record, 'type') === 'launch.refused',
    )
    assert.equal(member(refused, 'refusal', 'code'), 'IMAGE_QUOTA_EXCEEDED')
    // This host's spawn has no workers: getting as far as that is enough.
    assert.equal(member((await on.launch('other')).json, 'code'), 'LAUNCH_FAILED')
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
    const ended = await agent.operator({ path: `/v1/tenants/acme/pods/${POD}/wait?timeout_s=60` })
    assert.equal(member(ended.json, 'state'), 'exited', ended.text)
    assert.equal(member((await on.launch()).json, 'code'), 'LAUNCH_FAILED')
    assert.equal(workers(), 2)
  })
})
