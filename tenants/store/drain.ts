/** Whether the host is drained: one row while it is, and what became of pods meanwhile. */
import { sql } from 'kysely'
import type { Store } from './tables.ts'

/** The host takes no pods, and those that it had are told to end. */
export interface HostDrain {
  /** ms since 1970, as are the others. */
  readonly sinceMs: number
  /** Pods that run then are killed. */
  readonly untilMs: number
  /** Who asked. */
  readonly identity: string
  /** When the last pod had ended, or could not be ended in time; null: not yet. */
  readonly reportedMs: number | null
}

/** Pods of all tenants. */
export interface DrainCounts {
  /** Not ended: they run, or are being launched. */
  readonly left: number
  /** Ended since the drain began. */
  readonly ended: number
  /** Of those, how many were killed. */
  readonly killed: number
  /** Held back by the drain: their rule would have them started again by now. */
  readonly waiting: number
}

export async function selectDrain(store: Store): Promise<HostDrain | null> {
  const row = await store.selectFrom('host_drain').selectAll().executeTakeFirst()
  if (row === undefined) return null
  return {
    sinceMs: row.since_ms,
    untilMs: row.until_ms,
    identity: row.identity,
    reportedMs: row.reported_ms,
  }
}

/** Writes it down; of a drain that goes on only the deadline changes. */
export async function putDrain(store: Store, drain: HostDrain): Promise<void> {
  const { untilMs: until_ms, identity, reportedMs: reported_ms } = drain
  const row = { until_ms, identity, reported_ms }
  await store
    .insertInto('host_drain')
    .values({ id: 0, since_ms: drain.sinceMs, ...row })
    .onConflict((same) => same.column('id').doUpdateSet(row))
    .execute()
}

/** Of this drain: one whose deadline was moved meanwhile goes on. */
export async function noteReported(
  store: Store,
  { untilMs }: HostDrain,
  nowMs: number,
): Promise<void> {
  await store
    .updateTable('host_drain')
    .set({ reported_ms: nowMs })
    .where('until_ms', '=', untilMs)
    .execute()
}

/** true when there was one. */
export async function deleteDrain(store: Store): Promise<boolean> {
  const row = await store.deleteFrom('host_drain').returning('id').executeTakeFirst()
  return row !== undefined
}

const KILLED = sql<number>`json_extract(exit, '$.cause') IN ('KILLED', 'STOP_TIMEOUT')`

export async function countDrained(
  store: Store,
  { sinceMs, nowMs }: { readonly sinceMs: number; readonly nowMs: number },
): Promise<DrainCounts> {
  const left = await store
    .selectFrom('pods')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('state', 'in', ['requested', 'launching', 'running'])
    .executeTakeFirstOrThrow()
  const ended = await store
    .selectFrom('pods')
    .select(({ fn }) => [
      fn.countAll<number>().as('count'),
      fn.sum<number | null>(KILLED).as('killed'),
    ])
    .where('ended_ms', '>=', sinceMs)
    .where('state', '=', 'exited')
    .executeTakeFirstOrThrow()
  const waiting = await store
    .selectFrom('pods')
    .select(({ fn }) => fn.countAll<number>().as('count'))
    .where('restart_due_ms', '<=', nowMs)
    .executeTakeFirstOrThrow()
  return {
    left: left.count,
    ended: ended.count,
    killed: ended.killed ?? 0,
    waiting: waiting.count,
  }
}
