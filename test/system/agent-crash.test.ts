/**
 * kill -9 of the agent at each step of a launch, on a host of real parts. Whatever was reached,
 * nothing runs that is not on record, the next agent settles it, quota is given back, and the same
 * request sent again starts nothing twice. Pods that run do not notice.
 */
import assert from 'node:assert/strict'
import { after, before, suite, test } from 'node:test'
import { member } from '../agent/harness.ts'
import { missing } from '../peers/images-programs.ts'
import { type CrashHost, openCrashHost, type PodRow } from './crash-host.ts'
import { whyNot } from './harness.ts'

const skip = whyNot() ?? missing('docker-registry')

suite('system/agent killed during a launch', { skip }, () => {
  let host: CrashHost

  before(async () => {
    host = await openCrashHost()
  })
  after(async () => {
    await host.close()
  })

  const launch = (key: string): Promise<unknown> =>
    host.call('POST', '/v1/tenants/acme/pods', { image: host.image }, key)

  /** Types of the records about a pod. */
  async function recordsOf(pod: string): Promise<readonly unknown[]> {
    const log = await host.call('GET', '/v1/audit/records?limit=1000')
    const entries = member(log, 'records')
    assert.ok(Array.isArray(entries))
    return entries
      .map((entry: unknown) => member(entry, 'record'))
      .filter((record) => member(record, 'launch_id') === pod)
      .map((record) => member(record, 'type'))
  }

  const runningInSpawn = async (): Promise<readonly string[]> =>
    (await host.spawn.list()).filter((status) => status.state === 'running').map(({ pod }) => pod)

  const pidOf = async (pod: string): Promise<number | undefined> =>
    (await host.spawn.list()).find((status) => status.pod === pod)?.pid

  const podOf = (pod: string): Promise<unknown> => host.call('GET', `/v1/tenants/acme/pods/${pod}`)

  /** Ends the pod when it runs, and holds that its quota is free again. */
  async function clear(pod: string): Promise<void> {
    const place = `/v1/tenants/acme/pods/${pod}`
    if (member(await podOf(pod), 'state') === 'running') {
      await host.call('POST', `${place}/stop`, { timeout_ms: 0 })
      const ended = await host.call('GET', `${place}/wait?timeout_s=600`)
      assert.equal(member(ended, 'state'), 'exited')
    }
    const tenant = await host.call('GET', '/v1/tenants/acme')
    assert.equal(member(tenant, 'quotas', 'pods', 'used'), 0)
    assert.deepEqual(await runningInSpawn(), [])
  }

  const points: readonly (readonly [string, (pod: PodRow) => boolean])[] = [
    ['the pod was written down', () => true],
    ['its quota was reserved', (pod) => pod.state === 'launching'],
    ['its intent was on record', (pod) => pod.record !== null],
    ['it ran', (pod) => pod.state === 'running'],
  ]
  for (const [what, reached] of points) {
    test(`settles a launch that was killed when ${what}`, async () => {
      const key = what.replaceAll(' ', '-')
      const asked = launch(key).catch(() => null)
      const { id } = await host.until(key, reached)
      await host.kill()
      await asked
      const ran = await runningInSpawn()
      await host.agent()
      const pod = await podOf(id)
      const records = await recordsOf(id)
      for (const running of ran) {
        assert.equal(running, id)
        assert.ok(records.includes('launch.intent'), 'something ran that is on no record')
      }
      assert.ok(['running', 'failed'].includes(String(member(pod, 'state'))), JSON.stringify(pod))
      if (member(pod, 'state') === 'failed') assert.ok(records.includes('launch.orphaned'))
      const again = await launch(key)
      const told = member(again, 'id') ?? member(again, 'code')
      assert.equal(told, member(pod, 'state') === 'running' ? id : 'LAUNCH_FAILED')
      const listed = await host.call('GET', '/v1/tenants/acme/pods')
      const pods = member(listed, 'pods')
      assert.ok(Array.isArray(pods))
      assert.equal(pods.filter((one: unknown) => member(one, 'id') === id).length, 1)
      await clear(id)
    })
  }

  test('a pod outlives its agent, and the next one streams on', async () => {
    const launched = await launch('outlive')
    const id = String(member(launched, 'id'))
    const first = await pidOf(id)
    await host.kill()
    await host.agent()
    assert.equal(member(await podOf(id), 'state'), 'running')
    assert.equal(await pidOf(id), first)
    await clear(id)
    assert.deepEqual(await recordsOf(id), [
      'launch.requested',
      'launch.intent',
      'launch.started',
      'launch.stop_requested',
      'launch.exited',
    ])
  })
})
