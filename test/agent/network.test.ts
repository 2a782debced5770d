/**
 * A launch with a network, up to spawn's no: store, policy, log and workers are real, and what spawn was sent is looked at.
 */
import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import { spawnClient } from '../../native/spawn-client.ts'
import { NETWORK_RATES, NO_NAMES, type PodNetwork, podNetwork } from '../../policy/index.ts'
import { networkOf } from '../native/networks.ts'
import { member, type Reply } from './harness.ts'
import { layOut } from './host/layout.ts'
import { runWorkerInChild } from './images/support/worker.ts'
import { DESCRIPTION } from './spawn-peer.ts'
import { records, type Stage, stage } from './stage.ts'

const codeOf = (reply: Reply): unknown => member(reply.json, 'code')

/** With the rates that every card gets. */
const given = (changes: Partial<PodNetwork>): PodNetwork =>
  networkOf({ ...changes, rates: NETWORK_RATES })

async function host(t: TestContext): Promise<Stage> {
  const on = await stage(t, {
    surroundings: {
      root: layOut(t, {}),
      now: Date.now,
      spawn: (socket) => ({ ...spawnClient(socket), worker: runWorkerInChild }),
    },
  })
  on.agent.spawn.answer('describe', () => DESCRIPTION)
  return on
}

/** The last spec that spawn was asked to start. */
function lastSpec({ agent }: Stage): Readonly<Record<string, unknown>> {
  const launched = agent.spawn.requests.findLast(({ op }) => op === 'launch')
  return JSON.parse(String(launched?.['spec'])) as Record<string, unknown>
}

const lastOf = async ({ agent }: Stage, type: string): Promise<unknown> =>
  (await records(agent)).findLast((record) => member(record, 'type') === type)

const rolesOf = (spec: Readonly<Record<string, unknown>>): unknown[] =>
  (spec['descriptors'] as unknown[]).map((one) => member(one, 'role'))

suite('agent/network', () => {
  test('spec, record and pod have the address that was reserved, and it is free again at the end', async (t) => {
    const on = await host(t)
    await on.admit('bolt')
    for (const [tenant, expected] of [
      ['acme', given(podNetwork(1, 2))],
      ['bolt', given(podNetwork(2, 2))],
      // Spawn started nothing, so that nothing is held.
      ['acme', given(podNetwork(1, 2))],
    ] as const) {
      const reply = await on.launch(tenant, undefined, { network: 'default' })
      assert.deepEqual([reply.status, codeOf(reply)], [502, 'LAUNCH_FAILED'], reply.text)
      const spec = lastSpec(on)
      assert.deepEqual(spec['network'], expected)
      assert.deepEqual(rolesOf(spec), ['init', 'image', 'scratch', 'log', 'net'])
      const intent = await lastOf(on, 'launch.intent')
      assert.deepEqual(member(intent, 'network'), expected)
      const path = `/v1/tenants/${tenant}/pods/${String(member(intent, 'launch_id'))}`
      const { json } = await on.agent.operator({ path })
      assert.deepEqual(member(member(json, 'facts'), 'network'), expected)
    }
  })

  test('what its tenant may reach and publish is in the spec and on record, and more is refused', async (t) => {
    const on = await host(t)
    const body = { egress: ['internet', '10.1.0.0/16=tcp:5432'], ports: ['8000-8099'] }
    const changed = await on.agent.operator({ method: 'PATCH', path: '/v1/tenants/acme', body })
    assert.deepEqual(
      [member(changed.json, 'egress'), member(changed.json, 'ports')],
      [body.egress, body.ports],
    )
    const record = await lastOf(on, 'tenant.changed')
    assert.deepEqual([member(record, 'egress'), member(record, 'ports')], [body.egress, body.ports])
    const asked = { egress: ['10.1.2.0/24=tcp:5432'], publish: ['8080:80'], hosts: ['db:10.1.2.3'] }
    await on.launch('acme', undefined, { network: 'default', ...asked })
    const network = given({
      ...podNetwork(1, 2),
      egress: {
        internet: false,
        rules: [{ cidr: '10.1.2.0/24', ports: { from: 5432, to: 5432 }, protocol: 'tcp' }],
      },
      names: { ...NO_NAMES, hosts: [{ address: '10.1.2.3', name: 'db' }] },
      ports: [{ address: '127.0.0.1', host: 8080, pod: 80, protocol: 'tcp' }],
    })
    assert.deepEqual(lastSpec(on)['network'], network)
    assert.deepEqual(member(await lastOf(on, 'launch.intent'), 'network'), network)
    for (const [more, code] of [
      [{ egress: ['10.0.0.0/8'] }, 'EGRESS_NOT_PERMITTED'],
      [{ publish: ['0.0.0.0:8080:80'] }, 'PORT_NOT_PERMITTED'],
    ] as const) {
      const reply = await on.launch('acme', undefined, { network: 'default', ...more })
      assert.deepEqual([reply.status, codeOf(reply)], [403, code], reply.text)
      assert.equal(member(member(await lastOf(on, 'launch.refused'), 'refusal'), 'code'), code)
    }
    const alone = await on.launch('acme', undefined, { publish: ['8080:80'] })
    assert.deepEqual([alone.status, codeOf(alone)], [400, 'BAD_REQUEST'], alone.text)
  })

  test('a launch that asks for none has none', async (t) => {
    const on = await host(t)
    for (const more of [{}, { network: 'none' }]) {
      await on.launch('acme', undefined, more)
      const spec = lastSpec(on)
      assert.equal(Object.hasOwn(spec, 'network'), false)
      assert.deepEqual(rolesOf(spec), ['init', 'image', 'scratch', 'log'])
      const intent = Object(await lastOf(on, 'launch.intent'))
      assert.equal(Object.hasOwn(intent, 'network'), false)
    }
  })

  test('a network of a later version is refused on record, a name that is none at once', async (t) => {
    const on = await host(t)
    const reply = await on.launch('acme', undefined, { network: 'restricted' })
    assert.deepEqual([reply.status, codeOf(reply)], [501, 'NETWORK_NOT_AVAILABLE'], reply.text)
    const refused = await lastOf(on, 'launch.refused')
    assert.equal(member(member(refused, 'refusal'), 'code'), 'NETWORK_NOT_AVAILABLE')
    for (const network of ['', 'No', 'a'.repeat(64), 7]) {
      const bad = await on.launch('acme', undefined, { network })
      assert.deepEqual([bad.status, codeOf(bad)], [400, 'BAD_REQUEST'], bad.text)
    }
  })
})
