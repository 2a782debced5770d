/** What operators change of a tenant: on record, whole or not at all, and in force with the next launch. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { generateSigningKey } from '../../agent/images/index.ts'
import { member, type Reply, startAgent } from './harness.ts'
import { records, stage } from './stage.ts'

/** The same rule with another key in place of the one that signed. */
function rotated(tenant: unknown): unknown {
  const { publicPem } = generateSigningKey()
  const text = JSON.stringify(member(tenant, 'image_rule', 'rule'))
  return JSON.parse(text.replace(/"pem":"[^"]*"/u, `"pem":${JSON.stringify(publicPem)}`))
}

suite('agent/tenants', () => {
  test('takes a key that was retired out of the rule, and suspends, for launches from then on', async (t) => {
    const on = await stage(t)
    const place = '/v1/tenants/acme'
    const change = (body: object): Promise<Reply> =>
      on.agent.operator({ method: 'PATCH', path: place, body })
    const before = (await on.agent.operator({ path: place })).json
    assert.notEqual(member((await on.launch()).json, 'code'), 'IMAGE_SIGNER_NOT_ACCEPTED')

    const changed = await change({ image_rule: rotated(before), display: 'Acme & Co' })
    assert.equal(changed.status, 200, changed.text)
    assert.equal(member(changed.json, 'display'), 'Acme & Co')
    assert.notEqual(
      member(changed.json, 'image_rule', 'digest'),
      member(before, 'image_rule', 'digest'),
    )
    assert.equal(member((await on.launch()).json, 'code'), 'IMAGE_SIGNER_NOT_ACCEPTED')

    const quotas = { vcpus: 1, memory_mib: 128, pods: 0 }
    assert.equal((await change({ state: 'suspended', quotas })).status, 200)
    assert.equal(member((await on.launch()).json, 'code'), 'TENANT_SUSPENDED')

    const found = (await records(on.agent)).filter(
      (record) => member(record, 'type') === 'tenant.changed',
    )
    const facts = found.map((record) =>
      ['changed', 'state', 'trust', 'image_rules'].map((name) => member(record, name)),
    )
    const digest = member(changed.json, 'image_rule', 'digest')
    assert.deepEqual(facts, [
      [['display', 'image_rule'], 'active', 'untrusted', digest],
      [['quotas', 'state'], 'suspended', 'untrusted', digest],
    ])
  })

  test('refuses a change that is none, and changes and records nothing', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    const place = '/v1/tenants/acme'
    const before = (await agent.operator({ path: place })).json
    const bad: readonly unknown[] = [
      {},
      { id: 'other' },
      { state: 'gone' },
      { trust: 'root' },
      { quotas: { vcpus: 1 } },
      { quotas: { vcpus: 1, memory_mib: 1_000_001, pods: 1 } },
      { quotas: { vcpus: 1, memory_mib: 1, pods: 1, launches_per_minute: 0 } },
      { display: 'two\nlines' },
      { state: 'suspended', image_rule: null },
      { trust: 'trusted', image_rule: { schemaVersion: 1, default: 'allow', rules: [] } },
    ]
    for (const body of bad) {
      const reply = await agent.operator({ method: 'PATCH', path: place, body })
      assert.equal(reply.status, 400, `${JSON.stringify(body)}: ${reply.text}`)
    }
    const absent = {
      method: 'PATCH',
      path: '/v1/tenants/nobody',
      body: { trust: 'trusted' },
    } as const
    assert.equal((await agent.operator(absent)).status, 404)
    assert.deepEqual((await agent.operator({ path: place })).json, before)
    const types = (await records(agent)).map((record) => member(record, 'type'))
    assert.ok(!types.includes('tenant.changed'))
  })
})
