/** Addresses of pods: each once, given out with the reservation and given back with it. */
import assert from 'node:assert/strict'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite, test } from 'node:test'
import { parsePublished, podNetwork } from '../../../policy/index.ts'
import { DATABASE_FILE } from '../../../tenants/open.ts'
import { leastFree } from '../../../tenants/store/networks.ts'
import {
  acme,
  bolt,
  change,
  open,
  openAt,
  ROOMY,
  requested,
  small,
  withTenant,
} from '../fixtures.ts'

const networked = { charge: small, networked: true, ports: [] } as const

suite('tenants/store/networks', () => {
  test('writes addresses as the spec has them, from the first to the last', () => {
    assert.deepEqual(podNetwork(1, 2), {
      addresses: ['10.88.1.2/24', 'fdca:5e3a:7e00:1::2/64'],
      gateways: ['10.88.1.1', 'fdca:5e3a:7e00:1::1'],
      mac: '02:00:0a:58:01:02',
      mtu: 1500,
    })
    assert.deepEqual(podNetwork(2047, 254), {
      addresses: ['10.95.255.254/24', 'fdca:5e3a:7e00:7ff::fe/64'],
      gateways: ['10.95.255.1', 'fdca:5e3a:7e00:7ff::1'],
      mac: '02:00:0a:5f:ff:fe',
      mtu: 1500,
    })
  })

  test('finds the least number that is free', () => {
    assert.equal(leastFree([], 2, 254), 2)
    assert.equal(leastFree([2, 3, 5], 2, 254), 4)
    assert.equal(leastFree([3], 2, 254), 2)
    assert.equal(leastFree([2, 3], 2, 4), 4)
    assert.equal(leastFree([2, 3, 4], 2, 4), null)
  })

  test('gives tenants networks of their own, and their pods addresses that go with the reservation', async (t) => {
    const { tenants } = open(t)
    const [scope, other] = [await withTenant(tenants), await withTenant(tenants, bolt)]
    const pods = [await requested(tenants, scope), await requested(tenants, scope)] as const
    const foreign = await requested(tenants, other)
    assert.deepEqual(await tenants.reserve(scope, pods[0].id, networked), podNetwork(1, 2))
    assert.deepEqual(await tenants.reserve(scope, pods[1].id, networked), podNetwork(1, 3))
    assert.deepEqual(await tenants.reserve(other, foreign.id, networked), podNetwork(2, 2))
    // One that has none takes none.
    const alone = await requested(tenants, scope)
    assert.equal(
      await tenants.reserve(scope, alone.id, { charge: small, networked: false, ports: [] }),
      null,
    )
    await tenants.movePod(scope, pods[0].id, 'refused')
    const next = await requested(tenants, scope)
    assert.deepEqual(await tenants.reserve(scope, next.id, networked), podNetwork(1, 2))
  })

  test('gives each of 40 parallel launches another address', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const pods = []
    for (let n = 0; n < 40; n += 1) pods.push(await requested(tenants, scope))
    const found = await Promise.all(
      pods.map(async ({ id }) => await tenants.reserve(scope, id, networked)),
    )
    assert.equal(new Set(found.map((network) => network?.addresses.join())).size, 40)
  })

  test('refuses a pod when all addresses are taken, and reserves nothing for it', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants, acme, { ...ROOMY, vcpus: 1000, pods: 1000 })
    for (let n = 2; n <= 254; n += 1) {
      await tenants.reserve(scope, (await requested(tenants, scope)).id, networked)
    }
    const { id } = await requested(tenants, scope)
    await assert.rejects(tenants.reserve(scope, id, networked), { code: 'NETWORK_FULL' })
    const { quotas } = await tenants.getTenant(scope)
    assert.equal(quotas.pods.used, 253)
    assert.equal(
      await tenants.reserve(scope, id, { charge: small, networked: false, ports: [] }),
      null,
    )
  })

  test('refuses a tenant’s first pod when all networks are others’', async (t) => {
    const { tenants, stateDir, clock } = open(t)
    await withTenant(tenants)
    await tenants.close()
    const database = new DatabaseSync(path.join(stateDir, DATABASE_FILE))
    database.exec(`WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2047)
      INSERT INTO tenants (id, display, created_ms, quota_vcpus, quota_memory_mib, quota_pods, network)
      SELECT 't' || i, 'x', 1, 1, 1, 1, i FROM n`)
    database.close()
    const again = openAt(stateDir, clock)
    t.after(async () => await again.close())
    const scope = await again.scope({ kind: 'operator', uid: 0 }, acme)
    const { id } = await requested(again, scope)
    await assert.rejects(again.reserve(scope, id, networked), { code: 'NETWORK_FULL' })
    await change(again, acme, { display: 'still there' })
  })

  test('gives a port to one pod, whosever it is, and takes it back with the reservation', async (t) => {
    const { tenants } = open(t)
    const [scope, other] = [await withTenant(tenants), await withTenant(tenants, bolt)]
    const wants = (...words: readonly string[]) => ({ ...networked, ports: parsePublished(words) })
    const first = await requested(tenants, scope)
    await tenants.reserve(
      scope,
      first.id,
      wants('8080:80', '[::1]:8080:80', '0.0.0.0:443:443', '53:53/udp'),
    )
    for (const word of [
      '8080:81',
      '0.0.0.0:8080:80',
      '[::]:8080:80',
      '127.0.0.1:443:1',
      '0.0.0.0:443:1',
      '53:5353/udp',
    ]) {
      const { id } = await requested(tenants, other)
      const refused = { code: 'PORT_TAKEN', message: /in use on this host/u }
      await assert.rejects(tenants.reserve(other, id, wants('9000:1', word)), refused, word)
      // Nothing of it is held: neither the quota, nor the port that was free.
      assert.equal((await tenants.getPod(other, id)).charge, null)
    }
    const { id } = await requested(tenants, other)
    const beside = wants(
      '9000:1',
      '127.0.0.2:8080:80',
      '[::]:443:443',
      '8081:80',
      '8080:80/udp',
      '53:53',
    )
    await tenants.reserve(other, id, beside)
    await tenants.movePod(scope, first.id, 'failed')
    const next = await requested(tenants, other)
    await tenants.reserve(other, next.id, wants('8080:80', '127.0.0.1:443:1'))
  })
})
