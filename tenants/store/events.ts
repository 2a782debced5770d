/**
 * Which records of the log are whose: an index into it, for the stream of events. What happened is in the record; a row has
 * what the record lacks, the pod's name and labels at that moment, which stay when the pod is removed.
 *
 * Of each subject, a tenant or the host, the newest rows are kept; so no tenant's noise takes another's events away. It can
 * be made anew from the log, but for names and labels of pods that are gone.
 */
import { sql } from 'kysely'
import { type Notes, parseLabels, type TenantId } from '../../policy/index.ts'
import { readRow } from './rows.ts'
import type { EventRow, Store } from './tables.ts'

/** Rows of a subject that are kept; a tenant within its usual quota writes so many records in an hour at the soonest. */
export const EVENTS_KEPT = 8192

/** The host's own. No tenant's id is empty. */
const HOST = ''
/** Below its floor there is nothing of anybody: where the index was begun. */
const ALL = '*'

/** One record of the log, as it is to be found. */
export interface NewEvent {
  readonly record: number
  /** null: the host's. */
  readonly tenant: string | null
  readonly timeMs: number
  readonly launch: string | null
  /** The tenant was created: what was somebody's of that id before is not its. */
  readonly isFirst: boolean
}

export interface StoredEvent extends Omit<NewEvent, 'isFirst'> {
  /** null: it is about no pod, or about several. */
  readonly pod: string | null
  readonly attempt: number | null
  readonly name: string | null
  readonly labels: Notes
}

/** Whose events: a tenant's, or all there are. */
export type Subject = TenantId | 'all'

export interface EventPage {
  /** In the order of the log. */
  readonly events: readonly StoredEvent[]
  /** All events from this record on are kept. */
  readonly floor: number
}

/** The first record that is not in the index yet; null: no record was ever. */
export async function indexedTo(store: Store): Promise<number | null> {
  const row = await store.selectFrom('event_position').select('next').executeTakeFirst()
  return row?.next ?? null
}

/** Begins the index at a record: nothing before it is known, and whoever asks for it is told. */
export async function beginIndex(store: Store, next: number): Promise<void> {
  await store.transaction().execute(async (transaction) => {
    await transaction.deleteFrom('events').execute()
    await transaction.deleteFrom('event_floors').execute()
    await transaction.deleteFrom('event_position').execute()
    await transaction.insertInto('event_position').values({ id: 0, next }).execute()
    await transaction.insertInto('event_floors').values({ subject: ALL, floor: next }).execute()
  })
}

/** The pod of a launch: as it is now or, when it is gone already, as an earlier event had it. */
async function podOf(store: Store, launch: string | null) {
  const nothing = { pod: launch, attempt: null, name: null, labels: '{}' }
  if (launch === null) return nothing
  const pod = await store
    .selectFrom('pods')
    .select(['origin as pod', 'attempt', 'name', 'labels'])
    .where('id', '=', launch)
    .executeTakeFirst()
  if (pod !== undefined) return pod
  const earlier = await store
    .selectFrom('events')
    .select(['pod', 'attempt', 'name', 'labels'])
    .where('launch', '=', launch)
    .orderBy('record', 'desc')
    .executeTakeFirst()
  return earlier ?? nothing
}

/** All rows of the subject from that record on are there, and perhaps no others. */
async function setFloor(store: Store, subject: string, floor: number): Promise<void> {
  await store
    .insertInto('event_floors')
    .values({ subject, floor })
    .onConflict((same) =>
      same.column('subject').doUpdateSet({ floor: sql<number>`max(event_floors.floor, ${floor})` }),
    )
    .execute()
}

/**
 * A tenant is no more, or not yet: what there is under its id is for operators alone, among the host's, and not for
 * whoever has the id next.
 */
export async function giveToHost(store: Store, tenant: string): Promise<void> {
  await store.updateTable('events').set({ subject: HOST }).where('subject', '=', tenant).execute()
  const gone = await store
    .deleteFrom('event_floors')
    .where('subject', '=', tenant)
    .returning('floor')
    .executeTakeFirst()
  if (gone !== undefined) await setFloor(store, HOST, gone.floor)
}

/** Keeps the newest rows of a subject. */
async function trim(store: Store, subject: string, keep: number): Promise<void> {
  const first = await store
    .selectFrom('events')
    .select('record')
    .where('subject', '=', subject)
    .orderBy('record', 'desc')
    .limit(1)
    .offset(keep)
    .executeTakeFirst()
  if (first === undefined) return
  await store
    .deleteFrom('events')
    .where('subject', '=', subject)
    .where('record', '<=', first.record)
    .execute()
  await setFloor(store, subject, first.record + 1)
}

/**
 * Adds the records that follow those in the index, all or none: a record is there once, whenever the agent ends.
 * @param events of which the first is the one that `indexedTo` says
 * @param keep rows of each subject
 */
export async function addEvents(
  store: Store,
  events: readonly NewEvent[],
  keep: number = EVENTS_KEPT,
): Promise<void> {
  const last = events.at(-1)
  if (last === undefined) return
  await store.transaction().execute(async (transaction) => {
    for (const { record, tenant, timeMs, launch, isFirst } of events) {
      // oxlint-disable-next-line no-await-in-loop -- one connection
      if (isFirst && tenant !== null) await giveToHost(transaction, tenant)
      // oxlint-disable-next-line no-await-in-loop -- one connection
      const about = await podOf(transaction, launch)
      // oxlint-disable-next-line no-await-in-loop
      await transaction
        .insertInto('events')
        .values({ record, subject: tenant ?? HOST, time_ms: timeMs, launch, ...about })
        .execute()
    }
    for (const subject of new Set(events.map(({ tenant }) => tenant ?? HOST))) {
      // oxlint-disable-next-line no-await-in-loop
      await trim(transaction, subject, keep)
    }
    await transaction
      .updateTable('event_position')
      .set({ next: last.record + 1 })
      .execute()
  })
}

const eventOf = (row: EventRow): StoredEvent =>
  readRow('events', String(row.record), () => ({
    record: row.record,
    tenant: row.subject === HOST ? null : row.subject,
    timeMs: row.time_ms,
    launch: row.launch,
    pod: row.pod,
    attempt: row.attempt,
    name: row.name,
    labels: parseLabels(JSON.parse(row.labels)),
  }))

/** Events from a record on, and what is kept, of the same moment. @throws TenantsError STORE_CORRUPT */
export async function selectEvents(
  store: Store,
  subject: Subject,
  { from, limit }: { readonly from: number; readonly limit: number },
): Promise<EventPage> {
  return await store.transaction().execute(async (transaction) => {
    let rows = transaction.selectFrom('events').selectAll().where('record', '>=', from)
    let floors = transaction
      .selectFrom('event_floors')
      .select(({ fn }) => fn.max('floor').as('floor'))
    if (subject !== 'all') {
      rows = rows.where('subject', '=', subject)
      floors = floors.where('subject', 'in', [subject, ALL])
    }
    const found = await rows.orderBy('record').limit(limit).execute()
    const floor = await floors.executeTakeFirst()
    return { events: found.map(eventOf), floor: floor?.floor ?? 0 }
  })
}

/** The first record of a subject whose time is not before `timeMs`; null: none is kept. */
export async function firstEventAt(
  store: Store,
  subject: Subject,
  timeMs: number,
): Promise<number | null> {
  let rows = store
    .selectFrom('events')
    .select(sql<number | null>`min(record)`.as('record'))
    .where('time_ms', '>=', timeMs)
  if (subject !== 'all') rows = rows.where('subject', '=', subject)
  return (await rows.executeTakeFirst())?.record ?? null
}

/** The time of the oldest event that is kept, ms since 1970; null: none is. */
export async function oldestEventMs(store: Store, subject: Subject): Promise<number | null> {
  let rows = store.selectFrom('events').select('time_ms')
  if (subject !== 'all') rows = rows.where('subject', '=', subject)
  return (await rows.orderBy('record').limit(1).executeTakeFirst())?.time_ms ?? null
}
