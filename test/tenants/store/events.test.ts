/** The index of events: what is kept of each subject, and that a record is in it once. */
import assert from 'node:assert/strict'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { adapt, kyselyOver, openDatabase } from '../../../tenants/store/database.ts'
import {
  addEvents,
  beginIndex,
  indexedTo,
  type NewEvent,
  type Subject,
  selectEvents,
} from '../../../tenants/store/events.ts'
import type { Store } from '../../../tenants/store/tables.ts'
import { acme, bolt, temporaryDir } from '../fixtures.ts'

function storeOf(t: TestContext): Store {
  const store = kyselyOver(adapt(openDatabase(path.join(temporaryDir(t), 'casemate.db'))))
  t.after(async () => await store.destroy())
  return store
}

const event = (record: number, tenant: string | null): NewEvent => ({
  record,
  tenant,
  timeMs: 1000 + record,
  launch: null,
  isFirst: false,
})

async function kept(store: Store, subject: Subject): Promise<readonly [number, number[]]> {
  const { events, floor } = await selectEvents(store, subject, { from: 0, limit: 100 })
  return [floor, events.map(({ record }) => record)]
}

suite('tenants/store/events', () => {
  test('keeps the newest of each subject, and says from where on all are there', async (t) => {
    const store = storeOf(t)
    await beginIndex(store, 0)
    // Noise of one tenant takes nothing away of another's, nor of the host's.
    const noise = Array.from({ length: 6 }, (_, at) => event(2 + at, acme))
    await addEvents(store, [event(0, bolt), event(1, null), ...noise], 4)
    assert.deepEqual(await kept(store, acme), [4, [4, 5, 6, 7]])
    assert.deepEqual(await kept(store, bolt), [0, [0]])
    assert.deepEqual(await kept(store, 'all'), [4, [0, 1, 4, 5, 6, 7]])
    await addEvents(store, [event(8, acme)], 4)
    assert.deepEqual(await kept(store, acme), [5, [5, 6, 7, 8]])
    assert.equal(await indexedTo(store), 9)
  })

  test('takes all of a batch or nothing: no record is there twice', async (t) => {
    const store = storeOf(t)
    await beginIndex(store, 0)
    await addEvents(store, [event(0, acme)])
    await assert.rejects(addEvents(store, [event(1, acme), event(0, acme)]))
    assert.deepEqual(await kept(store, acme), [0, [0]])
    assert.equal(await indexedTo(store), 1)
  })

  test('what an earlier tenant of the id had is for operators, among the host’s', async (t) => {
    const store = storeOf(t)
    await beginIndex(store, 0)
    await addEvents(store, [event(0, null), event(1, acme), event(2, acme), event(3, acme)], 2)
    await addEvents(store, [{ ...event(4, acme), isFirst: true }, event(5, acme)], 4)
    assert.deepEqual(await kept(store, acme), [0, [4, 5]])
    // What was gone of it before is gone for operators, and said.
    assert.deepEqual(await kept(store, 'all'), [2, [0, 2, 3, 4, 5]])
  })

  test('begun in the middle of a log, nobody’s events are before that', async (t) => {
    const store = storeOf(t)
    await beginIndex(store, 7)
    await addEvents(store, [event(7, acme)])
    assert.deepEqual(await kept(store, acme), [7, [7]])
    assert.deepEqual(await kept(store, bolt), [7, []])
  })
})
