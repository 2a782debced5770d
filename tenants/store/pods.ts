/** The pods table, a row for each start. Every function takes a scope: another tenant's pod looks absent. */
import { sql } from 'kysely'
import { type PodId, parseTenantId } from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import type { Pod, PodChanges } from '../pod.ts'
import { isFinal, type PodState, predecessorsOf } from '../pod-state.ts'
import { systemScope, type TenantScope } from '../scope.ts'
import { releaseIn } from './quota.ts'
import { dropRequest } from './restarts.ts'
import { jsonColumn, podOf } from './rows.ts'
import type { PodRow, Store } from './tables.ts'

const podNotFound = (): TenantsError =>
  new TenantsError('POD_NOT_FOUND', 'There is no such pod in this tenant.')

/** @throws TenantsError POD_NOT_FOUND */
export async function selectPod(store: Store, scope: TenantScope, pod: PodId): Promise<Pod> {
  const row = await store
    .selectFrom('pods')
    .selectAll()
    .where('id', '=', pod)
    .where('tenant', '=', scope.tenant)
    .executeTakeFirst()
  if (row === undefined) throw podNotFound()
  return podOf(row)
}

/** The newest start of each pod, the newest pod first; `before` is the last pod's id of the page before. */
export async function selectPods(
  store: Store,
  scope: TenantScope,
  page: { readonly limit: number; readonly before: PodId | null },
): Promise<readonly Pod[]> {
  let query = store
    .selectFrom('pods')
    .selectAll()
    .where('tenant', '=', scope.tenant)
    .where('attempt', '=', (one) =>
      one
        .selectFrom('pods as starts')
        .select(({ fn }) => fn.max('starts.attempt').as('newest'))
        .whereRef('starts.tenant', '=', 'pods.tenant')
        .whereRef('starts.origin', '=', 'pods.origin'),
    )
  if (page.before !== null) query = query.where('origin', '<', page.before)
  const rows = await query.orderBy('origin', 'desc').limit(page.limit).execute()
  return rows.map(podOf)
}

/** Pods of all tenants that are not final, each with a scope to go on with: for reconcile. */
export async function selectUnfinished(
  store: Store,
): Promise<readonly { readonly scope: TenantScope; readonly pod: Pod }[]> {
  const rows = await store
    .selectFrom('pods')
    .selectAll()
    .where('state', 'in', ['requested', 'launching', 'running'])
    .orderBy('id')
    .execute()
  return rows.map((row) => ({ scope: systemScope(parseTenantId(row.tenant)), pod: podOf(row) }))
}

const columnsOf = (changes: PodChanges): Partial<PodRow> => ({
  ...(changes.imageDigest === undefined ? {} : { image_digest: changes.imageDigest }),
  ...(changes.level === undefined ? {} : { level: changes.level }),
  ...(changes.specDigest === undefined ? {} : { spec_digest: changes.specDigest }),
  ...(changes.recordIndex === undefined ? {} : { record_index: changes.recordIndex }),
  ...(changes.exit === undefined ? {} : { exit: jsonColumn(changes.exit) }),
  ...(changes.problem === undefined ? {} : { problem: jsonColumn({ ...changes.problem }) }),
  ...(changes.facts === undefined ? {} : { facts: jsonColumn(changes.facts) }),
  ...(changes.stopRecorded === undefined ? {} : { stop_recorded: 1 }),
})

/** In the same statement as the end: who tells the pod to stop does so before or after both. */
const dueColumns = ({ restart }: PodChanges) =>
  restart === undefined
    ? {}
    : {
        restart_due_ms: sql<
          number | null
        >`CASE WHEN stop_asked = 1 THEN NULL ELSE ${restart.dueMs} END`,
        restart_streak: restart.streak,
      }

export interface Move {
  readonly to: PodState
  readonly changes: PodChanges
  readonly nowMs: number
}

/**
 * Moves a pod to its next state, by compare and swap. A final state gives the reservation back in
 * the same transaction.
 * @throws TenantsError POD_NOT_FOUND, POD_STATE_CONFLICT
 */
export async function movePod(
  store: Store,
  scope: TenantScope,
  pod: PodId,
  { to, changes, nowMs }: Move,
): Promise<Pod> {
  return await store.transaction().execute(async (transaction) => {
    // Before the move: a final state with a reservation is refused by the table.
    if (isFinal(to)) await releaseIn(transaction, scope, pod)
    const row = await transaction
      .updateTable('pods')
      .set({
        ...columnsOf(changes),
        state: to,
        ...(to === 'running' ? { started_ms: nowMs } : {}),
        ...(isFinal(to) ? { ended_ms: nowMs, ...dueColumns(changes) } : {}),
      })
      .where('id', '=', pod)
      .where('tenant', '=', scope.tenant)
      .where('state', 'in', predecessorsOf(to))
      // Nothing is launched that holds no quota.
      .where('reserved', 'in', isFinal(to) ? [0] : [1])
      .returningAll()
      .executeTakeFirst()
    if (row !== undefined) {
      if (isFinal(to) && row.restart_due_ms === null) await dropRequest(transaction, row.origin)
      return podOf(row)
    }
    const wanted = isFinal(to) ? `to become ${to}` : `to become ${to}, which needs a reservation`
    throw await conflict(transaction, scope, pod, wanted)
  })
}

/** Writes facts down without a change of state. Final pods stay as they are. */
export async function notePod(
  store: Store,
  scope: TenantScope,
  pod: PodId,
  changes: PodChanges,
): Promise<Pod> {
  return await store.transaction().execute(async (transaction) => {
    const row = await transaction
      .updateTable('pods')
      .set({ ...columnsOf(changes), id: pod })
      .where('id', '=', pod)
      .where('tenant', '=', scope.tenant)
      .where('state', 'in', ['requested', 'launching', 'running'])
      .returningAll()
      .executeTakeFirst()
    if (row !== undefined) return podOf(row)
    throw await conflict(transaction, scope, pod, 'to be changed')
  })
}

/**
 * Removes a start that has ended and is followed by no other that is due.
 * @throws TenantsError POD_NOT_FOUND, POD_STATE_CONFLICT
 */
export async function deletePod(store: Store, scope: TenantScope, pod: PodId): Promise<void> {
  await store.transaction().execute(async (transaction) => {
    const row = await transaction
      .deleteFrom('pods')
      .where('id', '=', pod)
      .where('tenant', '=', scope.tenant)
      .where('state', 'in', ['exited', 'failed', 'refused'])
      .where('restart_due_ms', 'is', null)
      .returning('id')
      .executeTakeFirst()
    if (row === undefined) throw await conflict(transaction, scope, pod, 'to be removed')
  })
}

async function conflict(
  store: Store,
  scope: TenantScope,
  pod: PodId,
  wanted: string,
): Promise<TenantsError> {
  const { state } = await selectPod(store, scope, pod)
  return new TenantsError(
    'POD_STATE_CONFLICT',
    `Pod ${pod} is ${state}; that does not allow it ${wanted}.`,
    { pod, state },
  )
}
