/** Pods that wait for their next start: one tenant's, however many, are no burden for another. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type PodId, parseRestartRule } from '../../policy/index.ts'
import type { TenantScope, Tenants } from '../../tenants/index.ts'
import {
  acme,
  alone,
  bolt,
  newPodId,
  open,
  ROOMY,
  running,
  START_MS,
  withTenant,
} from './fixtures.ts'

const IMAGE = 'registry.example.com/acme/web:1'
const ALWAYS = parseRestartRule('always')
const request = (tenants: Tenants, scope: TenantScope, id: PodId) =>
  tenants.createPod(scope, {
    id,
    imageReference: IMAGE,
    request: null,
    restart: ALWAYS === null ? null : { rule: ALWAYS, request: {} },
  })

/** A pod that has run and is due at that time. */
async function waiting(tenants: Tenants, scope: TenantScope, dueMs: number): Promise<PodId> {
  const id = newPodId()
  await request(tenants, scope, id)
  await tenants.reserve(scope, id, alone)
  await tenants.movePod(scope, id, 'launching')
  await tenants.movePod(scope, id, 'running')
  await tenants.movePod(scope, id, 'exited', { restart: { dueMs, streak: 1 } })
  return id
}

suite('tenants/restarts', () => {
  test('due pods of one tenant do not hide those of another', async (t) => {
    const { tenants } = open(t)
    const [many, one] = [await withTenant(tenants, acme), await withTenant(tenants, bolt)]
    const first: PodId[] = []
    for (let at = 0; at < 8; at += 1) first.push(await waiting(tenants, many, START_MS - 100 + at))
    const last = await waiting(tenants, one, START_MS)
    const late = await waiting(tenants, one, START_MS + 1)
    const due = (await tenants.duePods({ ofTenant: 2, ofAll: 4 })).map(({ pod }) => pod.id)
    assert.deepEqual(due, [...first.slice(0, 2), last])
    assert.ok(!due.includes(late))
  })

  test('a tenant with as many waiting pods as it may have pods begins no further one with a rule', async (t) => {
    const { tenants } = open(t)
    const scope = await withTenant(tenants, acme, { ...ROOMY, pods: 2 })
    await waiting(tenants, scope, START_MS)
    await waiting(tenants, scope, START_MS)
    const id = newPodId()
    await request(tenants, scope, id)
    await assert.rejects(tenants.reserve(scope, id, alone), { code: 'QUOTA_EXCEEDED' })
    // Without a rule it is a pod like any other.
    await running(tenants, scope)
  })
})
