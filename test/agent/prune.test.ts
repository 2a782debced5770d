/** What is kept of pods that have ended. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { mkdir } from 'node:fs/promises'
import path from 'node:path'
import { suite, test } from 'node:test'
import { PodFiles } from '../../agent/pod-files.ts'
import { prune } from '../../agent/tasks/prune.ts'
import type { Pod, TenantScope, Tenants } from '../../tenants/index.ts'
import { bolt, open, requested, running, withTenant } from '../tenants/fixtures.ts'

const failed = async (tenants: Tenants, scope: TenantScope): Promise<Pod> => {
  const { id } = await requested(tenants, scope)
  return await tenants.movePod(scope, id, 'failed')
}

suite('agent/prune', () => {
  test('keeps the newest ended pods of each tenant, all that run, and no file of the others', async (t) => {
    const { tenants, stateDir } = open(t)
    const mine = await withTenant(tenants)
    const theirs = await withTenant(tenants, bolt)
    const runs = await running(tenants, mine)
    const other = await failed(tenants, theirs)
    const ended: Pod[] = []
    for (let index = 0; index < 5; index += 1) ended.push(await failed(tenants, mine))
    const asked = await requested(tenants, mine)
    const place = ({ id }: Pod): string => path.join(stateDir, 'pods', id)
    const all = [runs, other, asked, ...ended]
    for (const pod of all) await mkdir(place(pod), { recursive: true })
    const files = new PodFiles(path.join(stateDir, 'pods'))
    await prune({ tenants, files }, 2)
    const listed = await tenants.listPods(mine, { limit: 100, cursor: null })
    const kept = [asked, ...ended.slice(3).toReversed(), runs].map((pod) => pod.id)
    assert.deepEqual(
      listed.map((pod) => pod.id),
      kept,
    )
    assert.equal((await tenants.listPods(theirs, { limit: 100, cursor: null })).length, 1)
    const left = all.filter((pod) => existsSync(place(pod))).map((pod) => pod.id)
    assert.deepEqual(left.toSorted(), [...kept, other.id].toSorted())
  })
})
