/** The count of ended starts that each tenant has: right after whatever is done to pods, by whichever way. */
import assert from 'node:assert/strict'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite, test } from 'node:test'
import { parseRestartRule } from '../../../policy/index.ts'
import type { Pod } from '../../../tenants/index.ts'
import { acme, alone, bolt, newPodId, open, requested, running, withTenant } from '../fixtures.ts'

suite('tenants/store/ended', () => {
  test('is what counting says, and finds those that are too many without looking at others', async (t) => {
    const { tenants, stateDir, clock } = open(t)
    const [mine, theirs] = [await withTenant(tenants), await withTenant(tenants, bolt)]
    const database = new DatabaseSync(path.join(stateDir, 'casemate.db'), { readOnly: true })
    t.after(() => database.close())
    const holds = (expected: number): void => {
      const rows = database.prepare('SELECT id, ended_pods FROM tenants ORDER BY id').all()
      const counted = database.prepare(`SELECT count(*) AS n FROM pods WHERE tenant = ?
        AND state IN ('exited', 'failed', 'refused') AND restart_due_ms IS NULL`)
      for (const row of rows) {
        assert.equal(row['ended_pods'], counted.get(String(row['id']))?.['n'], String(row['id']))
      }
      assert.equal(rows.find((row) => row['id'] === acme)?.['ended_pods'], expected)
    }
    holds(0)
    const refused = await requested(tenants, mine)
    await tenants.movePod(mine, refused.id, 'refused')
    holds(1)
    const exited = await running(tenants, mine)
    await tenants.movePod(mine, exited.id, 'exited', { exit: null })
    await requested(tenants, theirs)
    holds(2)
    const rule = parseRestartRule('always')
    assert.ok(rule !== null)
    const made = await tenants.createPod(mine, {
      id: newPodId(),
      imageReference: 'registry.example.com/acme/web:1',
      request: null,
      restart: { rule, request: {} },
    })
    assert.ok(made.kind === 'created')
    const start = async (pod: Pod): Promise<void> => {
      await tenants.reserve(mine, pod.id, alone)
      await tenants.movePod(mine, pod.id, 'launching')
      await tenants.movePod(mine, pod.id, 'running')
      const restart = { dueMs: clock.nowMs + 1000, streak: 1 }
      await tenants.movePod(mine, pod.id, 'exited', { exit: null, restart })
    }
    await start(made.pod)
    holds(2) // it waits for its next start
    clock.nowMs += 2000
    const begun = await tenants.beginRestart(mine, made.pod.id, newPodId())
    assert.ok(begun !== null)
    holds(3) // the first start is over
    await start(begun.pod)
    holds(3)
    await tenants.tellToStop(mine, made.pod.id)
    holds(4)
    assert.deepEqual(
      (await tenants.surplusPods(3, 10)).map(({ pod }) => pod),
      [refused.id],
    )
    assert.deepEqual(await tenants.surplusPods(4, 10), [])
    await tenants.deletePod(mine, refused.id)
    holds(3)
    const plan = database
      .prepare(
        `EXPLAIN QUERY PLAN SELECT id FROM pods WHERE tenant = 'acme' AND state IN ('exited', 'failed', 'refused')
         AND restart_due_ms IS NULL ORDER BY id DESC LIMIT 1 OFFSET 3`,
      )
      .all()
    assert.match(JSON.stringify(plan), /pods_over/u)
    assert.doesNotMatch(JSON.stringify(plan), /TEMP B-TREE/u)
  })
})
