import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  BadNoun,
  egressWords,
  parseEgress,
  parsePortRanges,
  parseTenantId,
  portRangeWords,
} from '../../policy/index.ts'
import { type Caller, operatorFromPeer, TenantsError } from '../../tenants/index.ts'
import { document, ruleOf } from '../policy/fixtures.ts'
import {
  acme,
  alone,
  bolt,
  change,
  open,
  openAt,
  ROOMY,
  requested,
  root,
  running,
  withTenant,
} from './fixtures.ts'

const caller: Caller = {
  kind: 'tenant',
  tenant: acme,
  subject: 'acme/ci',
  jti: 'j',
  expiresMs: 0,
}

suite('tenants: tenants', () => {
  test('creates a tenant that is untrusted and has no rule, and finds it after a restart', async (t) => {
    const { tenants, stateDir, clock } = open(t)
    await withTenant(tenants)
    await tenants.close()
    const again = openAt(stateDir, clock)
    t.after(async () => await again.close())
    const facts = await again.facts(await again.scope(root, acme))
    assert.deepEqual(facts, {
      id: 'acme',
      trust: 'untrusted',
      suspended: false,
      imageRule: null,
      quotas: {
        vcpus: { used: 0, limit: 100 },
        memoryMib: { used: 0, limit: 100_000 },
        pods: { used: 0, limit: 100 },
      },
      egress: null,
      ports: [],
    })
  })

  test('keeps what a tenant may reach, and takes it away again', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const words = ['internet', '10.0.0.0/8=tcp:8000-8099', '2001:db8::/32']
    await change(tenants, acme, { egress: parseEgress(words) })
    assert.deepEqual(egressWords((await tenants.facts(scope)).egress), words)
    await change(tenants, acme, { display: 'Acme' })
    assert.deepEqual(egressWords((await tenants.facts(scope)).egress), words)
    await change(tenants, acme, { egress: parseEgress([]), ports: parsePortRanges(['8000-8099']) })
    const facts = await tenants.facts(scope)
    assert.equal(facts.egress, null)
    assert.deepEqual(portRangeWords(facts.ports), ['8000-8099'])
  })

  test('refuses a second tenant of one id, and changes nothing', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    await assert.rejects(withTenant(tenants, acme, { ...ROOMY, pods: 0 }), {
      code: 'TENANT_EXISTS',
    })
    assert.equal((await tenants.getTenant(scope)).quotas.pods.limit, 100)
  })

  test('changes trust, state, display and quotas one by one', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const imageRule = ruleOf(document())
    await change(tenants, acme, { imageRule })
    await change(tenants, acme, { trust: 'trusted' })
    await change(tenants, acme, { state: 'suspended' })
    await change(tenants, acme, { display: 'Acme & Co' })
    await change(tenants, acme, { quotas: { vcpus: 1, memoryMib: 2, pods: 3 } })
    assert.equal((await tenants.getTenant(scope)).launchesPerMinute, ROOMY.launchesPerMinute)
    await change(tenants, acme, { quotas: { launchesPerMinute: 4 } })
    await change(tenants, acme, {})
    const { trust, state, display, quotas, launchesPerMinute } = await tenants.getTenant(scope)
    assert.deepEqual(
      [trust, state, display, quotas.pods.limit, launchesPerMinute],
      ['trusted', 'suspended', 'Acme & Co', 3, 4],
    )
    assert.deepEqual((await tenants.facts(scope)).imageRule, imageRule)
    await assert.rejects(change(tenants, bolt, {}), { code: 'TENANT_NOT_FOUND' })
    await assert.rejects(change(tenants, acme, { display: 'a\nb' }), BadNoun)
    for (const bad of [{ vcpus: -1 }, { pods: 1.5 }, { launchesPerMinute: 0 }]) {
      await assert.rejects(change(tenants, acme, { quotas: bad }), BadNoun)
    }
  })

  test('neither makes nor changes a tenant that could not be put on record', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const operator = tenants.operator(root)
    const record = (): Promise<never> => Promise.reject(new Error('the log is full'))
    const before = await tenants.getTenant(scope)
    const changes = { trust: 'trusted', state: 'suspended' } as const
    await assert.rejects(tenants.changeTenant(operator, acme, changes, record), /the log is full/u)
    assert.deepEqual(await tenants.getTenant(scope), before)
    const { display, trust, imageRule } = before
    const tenant = { id: bolt, display, trust, imageRule, egress: null, ports: [], quotas: ROOMY }
    await assert.rejects(tenants.createTenant(operator, tenant, record), /the log is full/u)
    await assert.rejects(tenants.scope(root, bolt), { code: 'TENANT_NOT_FOUND' })
  })

  test('lists tenants page by page', async (t) => {
    const { tenants } = open(t)
    for (const id of ['c', 'a', 'b']) await withTenant(tenants, parseTenantId(id))
    const operator = tenants.operator(root)
    const first = await tenants.listTenants(operator, { limit: 2, cursor: null })
    const cursor = first.at(-1)?.id ?? null
    const rest = await tenants.listTenants(operator, { limit: 2, cursor })
    assert.deepEqual(
      [...first, ...rest].map(({ id }) => id),
      ['a', 'b', 'c'],
    )
    await assert.rejects(tenants.listTenants(operator, { limit: 1001, cursor: null }), RangeError)
  })
})

suite('tenants: scopes', () => {
  test('answers another tenant and no tenant with the same error, word for word', async (t) => {
    const { tenants } = open(t)
    await withTenant(tenants)
    await withTenant(tenants, bolt)
    const errors = []
    for (const id of [bolt, parseTenantId('nobody')]) {
      errors.push(
        await tenants.scope(caller, id).then(
          () => null,
          (error: unknown) => error,
        ),
      )
    }
    const [foreign, absent] = errors
    assert.ok(foreign instanceof TenantsError)
    assert.deepEqual(foreign, absent)
    assert.deepEqual(await tenants.scope(caller, acme), { tenant: 'acme', identity: 'acme/ci' })
    await assert.rejects(tenants.scope(root, parseTenantId('nobody')), { code: 'TENANT_NOT_FOUND' })
  })

  test('gives operator scope to operators only', (t) => {
    const { tenants } = open(t)
    assert.throws(() => tenants.operator(caller), { code: 'OPERATOR_ONLY' })
    assert.deepEqual(tenants.operator(root), { identity: 'uid:0' })
    assert.equal(operatorFromPeer(1000, new Set()), null)
    assert.deepEqual(operatorFromPeer(1000, new Set([1000])), { kind: 'operator', uid: 1000 })
    assert.deepEqual(operatorFromPeer(0, new Set()), { kind: 'operator', uid: 0 })
  })

  test('shows a pod of another tenant to no function', async (t) => {
    const { tenants } = open(t)
    const mine = await withTenant(tenants)
    const other = await withTenant(tenants, bolt)
    const { id } = await running(tenants, mine)
    const waiting = await requested(tenants, mine)
    const before = await tenants.getPod(mine, id)
    await assert.rejects(tenants.getPod(other, id), { code: 'POD_NOT_FOUND' })
    await assert.rejects(tenants.notePod(other, id, { facts: {} }), { code: 'POD_NOT_FOUND' })
    await assert.rejects(tenants.movePod(other, id, 'exited'), { code: 'POD_NOT_FOUND' })
    await assert.rejects(tenants.deletePod(other, id), { code: 'POD_NOT_FOUND' })
    await assert.rejects(tenants.reserve(other, waiting.id, alone), { code: 'POD_STATE_CONFLICT' })
    assert.deepEqual(await tenants.listPods(other, { limit: 10, cursor: null }), [])
    assert.deepEqual(await tenants.getPod(mine, id), before)
    assert.equal((await tenants.getTenant(other)).quotas.pods.used, 0)
    assert.equal((await tenants.getTenant(mine)).quotas.pods.used, 1)
  })

  test('does not take the pod id of another tenant, nor tell whose it is', async (t) => {
    const { tenants } = open(t)
    const { id } = await requested(tenants, await withTenant(tenants))
    const other = await withTenant(tenants, bolt, ROOMY)
    const same = { id, imageReference: 'x', request: null }
    await assert.rejects(tenants.createPod(other, same), { code: 'POD_EXISTS', facts: {} })
  })
})
