import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import path from 'node:path'
import { suite, test } from 'node:test'
import { type Charge, type PodId, Refusal } from '../../../policy/index.ts'
import type { TenantScope, Tenants } from '../../../tenants/index.ts'
import {
  acme,
  alone,
  change,
  open,
  openAt,
  ROOMY,
  requested,
  running,
  small,
  withTenant,
} from '../fixtures.ts'

const used = async (tenants: Tenants, scope: TenantScope): Promise<Charge> => {
  const { quotas } = await tenants.getTenant(scope)
  return { vcpus: quotas.vcpus.used, memoryMib: quotas.memoryMib.used, pods: quotas.pods.used }
}

/** The sum over pods must be what the tenant's row says, whatever happened. */
const assertConsistent = async (tenants: Tenants, scope: TenantScope): Promise<Charge> => {
  const pods = await tenants.listPods(scope, { limit: 1000, cursor: null })
  const held = pods.flatMap(({ charge }) => (charge === null ? [] : [charge]))
  const sum = { vcpus: 0, memoryMib: 0, pods: 0 }
  for (const one of held) {
    sum.vcpus += one.vcpus
    sum.memoryMib += one.memoryMib
    sum.pods += one.pods
  }
  assert.deepEqual(await used(tenants, scope), sum)
  return sum
}

suite('tenants/store/quota', () => {
  for (const [what, quotas, fit] of [
    ['pods', { ...ROOMY, pods: 7 }, 7],
    ['vcpus', { ...ROOMY, vcpus: 5 }, 5],
    ['memory_mib', { ...ROOMY, memoryMib: 128 * 3 + 127 }, 3],
  ] as const) {
    test(`lets as many of 40 parallel reservations through as ${what} hold`, async (t) => {
      const { tenants } = open(t)
      const scope = await withTenant(tenants, acme, quotas)
      const pods = []
      for (let n = 0; n < 40; n += 1) pods.push(await requested(tenants, scope))
      const results = await Promise.allSettled(
        pods.map(async ({ id }) => await tenants.reserve(scope, id, alone)),
      )
      const refusals = results.flatMap((one) => (one.status === 'rejected' ? [one.reason] : []))
      assert.equal(refusals.length, 40 - fit)
      for (const refusal of refusals) {
        assert.ok(refusal instanceof Refusal)
        assert.equal(refusal.code, 'QUOTA_EXCEEDED')
        assert.equal(refusal.facts['what'], what)
      }
      const sum = await assertConsistent(tenants, scope)
      assert.equal(sum.pods, fit)
    })
  }

  test('reserves once per pod, also when asked in parallel', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const { id } = await requested(tenants, scope)
    const results = await Promise.allSettled(
      Array.from({ length: 10 }, async () => await tenants.reserve(scope, id, alone)),
    )
    assert.equal(results.filter(({ status }) => status === 'fulfilled').length, 1)
    assert.deepEqual(await assertConsistent(tenants, scope), small)
  })

  test('releases once, whichever end comes first', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const { id } = await running(tenants, scope)
    await running(tenants, scope)
    await Promise.allSettled([
      tenants.movePod(scope, id, 'exited'),
      tenants.movePod(scope, id, 'failed'),
      tenants.movePod(scope, id, 'exited'),
    ])
    assert.deepEqual(await assertConsistent(tenants, scope), small)
  })

  test('gives nothing back for a pod that held nothing', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    await running(tenants, scope)
    const { id } = await requested(tenants, scope)
    await tenants.movePod(scope, id, 'refused')
    assert.deepEqual(await assertConsistent(tenants, scope), small)
  })

  test('refuses a suspended tenant at the reservation too', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    const { id } = await requested(tenants, scope)
    await change(tenants, acme, { state: 'suspended' })
    await assert.rejects(tenants.reserve(scope, id, alone), { code: 'TENANT_SUSPENDED' })
    assert.deepEqual(await assertConsistent(tenants, scope), { vcpus: 0, memoryMib: 0, pods: 0 })
  })

  test('lets quotas be lowered below what is in use, and refuses more', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants)
    await running(tenants, scope)
    const quotas = { vcpus: 0, memoryMib: 0, pods: 0 }
    await change(tenants, acme, { quotas })
    const { id } = await requested(tenants, scope)
    await assert.rejects(tenants.reserve(scope, id, alone), { code: 'QUOTA_EXCEEDED' })
    assert.deepEqual(await assertConsistent(tenants, scope), small)
  })
})

/** Runs the child until it ends; gives its exit code, or null when it was killed. */
const child = async (...args: string[]): Promise<number | null> => {
  const script = path.join(import.meta.dirname, 'reserve-child.ts')
  const started = spawn(process.execPath, [script, ...args], { stdio: 'inherit' })
  const ended: unknown[] = await once(started, 'exit')
  return typeof ended[0] === 'number' ? ended[0] : null
}

suite('tenants/store/quota: several processes', () => {
  test('three processes never take more than the quota together', async (t) => {
    const { tenants, stateDir } = open(t)
    const scope = await withTenant(tenants, acme, { ...ROOMY, vcpus: 11 })
    const pods: PodId[] = []
    for (let n = 0; n < 30; n += 1) pods.push((await requested(tenants, scope)).id)
    const codes = await Promise.all(
      [0, 1, 2].map(async (n) => await child(stateDir, '0', ...pods.slice(n * 10, n * 10 + 10))),
    )
    assert.deepEqual(codes, [0, 0, 0])
    assert.equal((await assertConsistent(tenants, scope)).vcpus, 11)
  })

  test('a process killed before any statement of a reservation leaves all of it or nothing', async (t) => {
    const { tenants, stateDir, clock } = open(t)
    const scope = await withTenant(tenants)
    await tenants.close()
    const seen: number[] = []
    for (let statement = 1; ; statement += 1) {
      const before = openAt(stateDir, clock)
      const { id } = await requested(before, scope)
      const held = await used(before, scope)
      await before.close()
      const code = await child(stateDir, String(statement), id)
      const after = openAt(stateDir, clock)
      const sum = await assertConsistent(after, scope)
      seen.push(sum.pods - held.pods)
      await after.close()
      if (code === 0) break
      assert.equal(code, null, 'the child was not killed')
    }
    // begin, pods, tenants, five for an address, commit: nothing until the last statement, and then all.
    assert.deepEqual(seen, [0, 0, 0, 0, 0, 0, 0, 0, 0, 1])
  })
})
