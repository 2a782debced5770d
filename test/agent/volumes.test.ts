/** Named volumes: decided, within the tenant's quota, on record before spawn is asked, and as spawn answers. */
import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import type { Canonical } from '../../policy/canonical.ts'
import { type Call, member, type Reply, startAgent, type TestAgent } from './harness.ts'
import { records } from './stage.ts'

const MIB = 2 ** 20
const PLACE = '/v1/tenants/acme/volumes'

interface Disk {
  readonly volume: string
  readonly snapshot: string | null
  size: number
}

interface Scene {
  readonly agent: TestAgent
  /** As a caller of acme. */
  readonly ask: (call: Call) => Promise<Reply>
  /** What spawn has of acme. */
  readonly disks: Disk[]
  /** Orders that came to spawn: operation, volume, snapshot, size. */
  readonly orders: () => readonly (readonly unknown[])[]
}

const statusOf = ({ volume, snapshot, size }: Disk): Canonical => ({
  volume,
  snapshot,
  size_bytes: size,
  used_bytes: 4096,
  made_ms: 1_000_000,
  machine: false,
  pod: null,
})

const recordOf = (request: Record<string, unknown>): unknown => {
  const record: unknown = JSON.parse(String(request['record']))
  return record
}

/** A spawn that does as it is told, and an untrusted tenant with 3 volumes of 200 MiB together. */
async function scene(t: TestContext): Promise<Scene> {
  const agent = await startAgent(t)
  const quotas = { vcpus: 1, memory_mib: 128, pods: 1, volumes: 3, volume_mib: 200 }
  const token = await agent.onboard('acme', { quotas })
  const disks: Disk[] = []
  const orders: unknown[][] = []
  agent.spawn.answer('volumes', ({ tenant }) => ({
    ok: true,
    volumes: tenant === 'acme' ? disks.map(statusOf) : [],
  }))
  agent.spawn.answer('volume', (request) => {
    const of = (name: string): unknown => member(recordOf(request), name)
    const [operation, volume, snapshot] = [of('operation'), String(of('volume')), of('snapshot')]
    const name = typeof snapshot === 'string' ? snapshot : null
    orders.push([operation, volume, snapshot, of('size_bytes')])
    const found = disks.find((one) => one.volume === volume && one.snapshot === null)
    if (operation === 'create')
      disks.push({ volume, snapshot: null, size: Number(of('size_bytes')) })
    if (operation === 'snapshot') disks.push({ volume, snapshot: name, size: found?.size ?? 0 })
    if (operation === 'grow' && found !== undefined) found.size = Number(of('size_bytes'))
    if (operation === 'remove') {
      disks.splice(
        disks.findIndex((one) => one.volume === volume && one.snapshot === name),
        1,
      )
    }
    return { ok: true }
  })
  return { agent, ask: (call) => agent.tenant(token, call), disks, orders: () => orders }
}

const create = ({ ask }: Scene, name: string, mib: number): Promise<Reply> =>
  ask({ method: 'POST', path: PLACE, body: { name, size_bytes: mib * MIB } })

const recorded = async (agent: TestAgent): Promise<readonly unknown[]> =>
  (await records(agent)).filter((one) => String(member(one, 'type')).startsWith('volume.'))

suite('agent/volumes', () => {
  test('is on record, with its receipt at spawn, before anything is done', async (t) => {
    const host = await scene(t)
    const { agent, ask, orders } = host
    const made = await create(host, 'data', 64)
    assert.equal(made.status, 201, made.text)
    assert.deepEqual(
      [member(made.json, 'name'), member(made.json, 'size_bytes'), member(made.json, 'vm_only')],
      ['data', 64 * MIB, false],
    )
    const [intent, ended] = await recorded(agent)
    assert.equal(member(intent, 'type'), 'volume.intent')
    assert.deepEqual(
      ['tenant', 'volume', 'operation', 'size_bytes', 'snapshot'].map((name) =>
        member(intent, name),
      ),
      ['acme', 'data', 'create', 64 * MIB, null],
    )
    assert.equal(member(intent, 'actor', 'kind'), 'tenant')
    assert.deepEqual(member(intent, 'policy', 'determining'), ['volume.own-tenant'])
    assert.match(String(member(intent, 'deadline', 'boottime_ns')), /^\d+$/u)
    assert.deepEqual([member(ended, 'type'), member(ended, 'outcome')], ['volume.ended', 'done'])
    const sent = agent.spawn.requests.find((one) => one['op'] === 'volume')
    assert.deepEqual(recordOf(sent ?? {}), intent)
    assert.match(String(sent?.['ticket']), /^c2sp\.org\/tlog-proof@v1\n/u)
    const place = `${PLACE}/data`
    const snapshot = await ask({
      method: 'POST',
      path: `${place}/snapshots`,
      body: { name: 'monday' },
    })
    assert.equal(member(snapshot.json, 'snapshots', '0', 'name'), 'monday', snapshot.text)
    const restored = await ask({
      method: 'POST',
      path: `${place}/restore`,
      body: { snapshot: 'monday' },
    })
    assert.equal(restored.status, 200, restored.text)
    const removed = await ask({ method: 'DELETE', path: `${place}/snapshots/monday` })
    assert.equal(removed.status, 204, removed.text)
    const grown = await ask({
      method: 'POST',
      path: `${place}/grow`,
      body: { size_bytes: 128 * MIB },
    })
    assert.equal(member(grown.json, 'size_bytes'), 128 * MIB, grown.text)
    const gone = await ask({ method: 'DELETE', path: place })
    assert.equal(gone.status, 204, gone.text)
    assert.deepEqual(orders(), [
      ['create', 'data', null, 64 * MIB],
      ['snapshot', 'data', 'monday', null],
      ['restore', 'data', 'monday', null],
      ['remove', 'data', 'monday', null],
      ['grow', 'data', null, 128 * MIB],
      ['remove', 'data', null, null],
    ])
    assert.deepEqual((await ask({ path: PLACE })).json, { volumes: [] })
  })

  test('is refused beyond the tenant’s quota, which snapshots count for, and at the same time', async (t) => {
    const host = await scene(t)
    const { ask, orders } = host
    const both = await Promise.all([create(host, 'one', 128), create(host, 'two', 128)])
    const statuses = both.map(({ status }) => status).toSorted((a, b) => a - b)
    assert.deepEqual(statuses, [201, 429], 'both together are more than 200 MiB')
    const refused = both.find(({ status }) => status === 429)
    assert.equal(member(refused?.json, 'code'), 'QUOTA_EXCEEDED')
    assert.equal(member(refused?.json, 'facts', 'what'), 'volume_bytes')
    const name = host.disks[0]?.volume ?? ''
    const snapshot = await ask({
      method: 'POST',
      path: `${PLACE}/${name}/snapshots`,
      body: { name: 'a' },
    })
    assert.equal(member(snapshot.json, 'code'), 'QUOTA_EXCEEDED', snapshot.text)
    const grown = await ask({
      method: 'POST',
      path: `${PLACE}/${name}/grow`,
      body: { size_bytes: 201 * MIB },
    })
    assert.equal(member(grown.json, 'code'), 'QUOTA_EXCEEDED', grown.text)
    assert.equal(orders().length, 1)
    host.disks.splice(0)
    for (const volume of ['a', 'b', 'c']) host.disks.push({ volume, snapshot: null, size: 0 })
    const fourth = await create(host, 'd', 64)
    assert.equal(member(fourth.json, 'facts', 'what'), 'volumes', fourth.text)
  })

  test('shows and changes nothing of another tenant’s, and no name is a path', async (t) => {
    const host = await scene(t)
    const { agent, orders } = host
    await create(host, 'data', 64)
    const other = await agent.onboard('other')
    for (const call of [
      { path: PLACE },
      { path: `${PLACE}/data` },
      { method: 'DELETE', path: `${PLACE}/data` },
      { method: 'POST', path: PLACE, body: { name: 'x', size_bytes: 64 * MIB } },
      { method: 'POST', path: `${PLACE}/data/snapshots`, body: { name: 'x' } },
      { method: 'POST', path: `${PLACE}/data/snapshots/x/export`, body: {} },
      { path: '/v1/tenants/other/volumes/data' },
      { method: 'DELETE', path: '/v1/tenants/other/volumes/data' },
    ] as const) {
      const reply = await agent.tenant(other, call)
      assert.equal(reply.status, 404, `${call.path}: ${reply.text}`)
    }
    for (const name of [
      '..',
      '../acme',
      'a/b',
      'a@b',
      '.new-data',
      '-a',
      'A',
      '',
      'a'.repeat(64),
    ]) {
      const reply = await create(host, name, 64)
      assert.equal(reply.status, 400, `${name}: ${reply.text}`)
    }
    const mounted = await host.ask({ method: 'DELETE', path: `${PLACE}/..%2f..%2fetc` })
    assert.equal(mounted.status, 404)
    for (const bytes of [0, 1, 63 * MIB, 64 * MIB + 4096, 2 ** 38 + MIB, 2 ** 60]) {
      const body = { name: 'x', size_bytes: bytes }
      const reply = await host.ask({ method: 'POST', path: PLACE, body })
      assert.equal(reply.status, 400, `${bytes}: ${reply.text}`)
    }
    assert.equal(orders().length, 1)
  })

  test('what spawn refuses is told by its code and on record as failed', async (t) => {
    const host = await scene(t)
    const { agent, ask } = host
    host.disks.push({ volume: 'data', snapshot: null, size: 64 * MIB })
    for (const [code, shown] of [
      ['VOLUME_IN_USE', 'VOLUME_IN_USE'],
      ['VOLUME_BUSY', 'VOLUME_BUSY'],
      ['VOLUME_HAS_SNAPSHOTS', 'VOLUME_HAS_SNAPSHOTS'],
      ['VOLUME_UNKNOWN', 'NOT_FOUND'],
      ['TICKET_SPENT', 'SPAWN_UNAVAILABLE'],
    ] as const) {
      agent.spawn.answer('volume', () => ({ ok: false, code, message: 'it is so' }))
      const reply = await ask({ method: 'DELETE', path: `${PLACE}/data` })
      assert.equal(member(reply.json, 'code'), shown, reply.text)
      const last = (await recorded(agent)).at(-1)
      assert.deepEqual([member(last, 'outcome'), member(last, 'code')], ['failed', code])
    }
    const before = (await recorded(agent)).length
    const twice = await create(host, 'data', 64)
    assert.equal(member(twice.json, 'code'), 'VOLUME_EXISTS', twice.text)
    const none = await ask({ method: 'DELETE', path: `${PLACE}/none` })
    assert.equal(none.status, 404)
    assert.equal((await recorded(agent)).length, before, 'what is seen to be impossible has none')
  })

  test('a suspended tenant changes nothing, and its operator can', async (t) => {
    const host = await scene(t)
    const { agent, ask, orders } = host
    await create(host, 'data', 64)
    await agent.operator({
      method: 'PATCH',
      path: '/v1/tenants/acme',
      body: { state: 'suspended' },
    })
    const refused = await ask({ method: 'DELETE', path: `${PLACE}/data` })
    assert.equal(member(refused.json, 'code'), 'TENANT_SUSPENDED', refused.text)
    const last = (await recorded(agent)).at(-1)
    assert.deepEqual(
      [member(last, 'type'), member(last, 'operation')],
      ['volume.refused', 'remove'],
    )
    const removed = await agent.operator({ method: 'DELETE', path: `${PLACE}/data` })
    assert.equal(removed.status, 204, removed.text)
    assert.equal(orders().length, 2)
  })
})
