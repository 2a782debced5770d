/** Further starts of pods that have a rule: docs/decisions/0027-a-restart-is-a-launch.md. */
import { sql, type Transaction } from 'kysely'
import { type Canonical, canonicalJson, parseCanonical } from '../../policy/canonical.ts'
import { type PodId, parseTenantId } from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import type { Pod } from '../pod.ts'
import { systemScope, type TenantScope } from '../scope.ts'
import { podOf, readRow } from './rows.ts'
import type { PodRow, Store, Tables } from './tables.ts'

/** Of the canonical request; the API takes no more (agent/server.ts). */
const REQUEST_BYTES_MAX = 262_144

/** Keeps what the pod was asked for with. Part of the transaction that makes the pod. */
export async function keepRequest(
  transaction: Transaction<Tables>,
  scope: TenantScope,
  origin: PodId,
  value: Canonical,
): Promise<void> {
  const request = canonicalJson(value)
  await transaction
    .insertInto('restart_requests')
    .values({ origin, tenant: scope.tenant, request })
    .execute()
}

/** Part of the transaction by which the pod ends for good. */
export async function dropRequest(transaction: Transaction<Tables>, origin: string): Promise<void> {
  await transaction.deleteFrom('restart_requests').where('origin', '=', origin).execute()
}

export const podNotFound = (): TenantsError =>
  new TenantsError('POD_NOT_FOUND', 'There is no such pod in this tenant.')

/** All starts of the pod that is kept under the id of any of them, the first first. @throws TenantsError POD_NOT_FOUND */
export async function selectStarts(
  store: Store,
  scope: TenantScope,
  pod: PodId,
): Promise<readonly [Pod, ...Pod[]]> {
  const rows = await store
    .selectFrom('pods')
    .selectAll()
    .where('tenant', '=', scope.tenant)
    .where('origin', 'in', (one) =>
      one
        .selectFrom('pods as named')
        .select('named.origin')
        .where('named.tenant', '=', scope.tenant)
        // The first start may be forgotten already; its id is the pod's all the same.
        .where((any) => any.or([any('named.id', '=', pod), any('named.origin', '=', pod)])),
    )
    .orderBy('attempt')
    .execute()
  const [first, ...rest] = rows.map(podOf)
  if (first === undefined) throw podNotFound()
  return [first, ...rest]
}

export interface ToldToStop {
  /** Its newest start. */
  readonly pod: Pod
  /** It waited for its next start, and has ended for good now. */
  readonly calledOff: boolean
}

/**
 * Marks all starts of the pod, so that no rule starts it again, and calls off a start that is due.
 * @throws TenantsError POD_NOT_FOUND
 */
export async function tellToStop(
  store: Store,
  scope: TenantScope,
  pod: PodId,
): Promise<ToldToStop> {
  return await store.transaction().execute(async (transaction) => {
    const starts = await selectStarts(transaction, scope, pod)
    const [{ origin }] = starts
    const rows = await transaction
      .updateTable('pods')
      .set({ stop_asked: 1, restart_due_ms: null })
      .where('tenant', '=', scope.tenant)
      .where('origin', '=', origin)
      .returningAll()
      .execute()
    const newest = rows.map(podOf).toSorted((a, b) => b.attempt - a.attempt)[0]
    if (newest === undefined) throw podNotFound()
    if (newest.endedMs !== null) await dropRequest(transaction, origin)
    return {
      pod: newest,
      calledOff: starts.some(({ restart }) => (restart?.dueMs ?? null) !== null),
    }
  })
}

/** How many due pods are looked at in one go. */
export interface DueMost {
  /** Of one tenant: its due pods, however many, hide nobody else's. */
  readonly ofTenant: number
  readonly ofAll: number
}

/** Pods of all tenants that are to be started again by now, those of each tenant that are due longest. */
export async function selectDue(
  store: Store,
  nowMs: number,
  { ofTenant, ofAll }: DueMost,
): Promise<readonly { readonly scope: TenantScope; readonly pod: Pod }[]> {
  const turn = sql<number>`row_number() OVER (PARTITION BY tenant ORDER BY restart_due_ms)`
  const rows = await store
    .with('due', (query) =>
      query
        .selectFrom('pods')
        .select(['id', turn.as('turn')])
        .where('restart_due_ms', '<=', nowMs),
    )
    .selectFrom('pods')
    .innerJoin('due', 'due.id', 'pods.id')
    .selectAll('pods')
    .where('due.turn', '<=', ofTenant)
    .orderBy('restart_due_ms')
    .limit(ofAll)
    .execute()
  return rows.map((row) => ({ scope: systemScope(parseTenantId(row.tenant)), pod: podOf(row) }))
}

export interface BegunRestart {
  /** In state `requested`. */
  readonly pod: Pod
  readonly request: Canonical
}

/**
 * Makes the next start of a pod that is due. One transaction takes the due time away and writes the row, so that there
 * is one of each number, whoever looks when. null: it is not due any more.
 * @throws TenantsError STORE_CORRUPT
 */
export async function beginRestart(
  store: Store,
  scope: TenantScope,
  { previous, id, nowMs }: { readonly previous: PodId; readonly id: PodId; readonly nowMs: number },
): Promise<BegunRestart | null> {
  return await store.transaction().execute(async (transaction) => {
    const before = await transaction
      .updateTable('pods')
      .set({ restart_due_ms: null })
      .where('id', '=', previous)
      .where('tenant', '=', scope.tenant)
      .where('restart_due_ms', '<=', nowMs)
      .where('stop_asked', '=', 0)
      .returningAll()
      .executeTakeFirst()
    if (before === undefined) return null
    const kept = await transaction
      .selectFrom('restart_requests')
      .select('request')
      .where('origin', '=', before.origin)
      .where('tenant', '=', scope.tenant)
      .executeTakeFirst()
    const request = readRow('restart_requests', before.origin, () =>
      parseCanonical(kept?.request ?? '', REQUEST_BYTES_MAX),
    )
    const row = await transaction
      .insertInto('pods')
      .values(successorOf(before, id))
      .returningAll()
      .executeTakeFirstOrThrow()
    return { pod: podOf(row), request }
  })
}

const successorOf = (before: PodRow, id: PodId) => ({
  id,
  tenant: before.tenant,
  state: 'requested',
  identity: before.identity,
  image_reference: before.image_reference,
  image_digest: before.image_digest,
  reserved: 0,
  vcpus: 0,
  memory_mib: 0,
  created_ms: before.created_ms,
  stop_recorded: 0,
  origin: before.origin,
  attempt: before.attempt + 1,
  restart_rule: before.restart_rule,
  restart_streak: before.restart_streak,
  stop_asked: 0,
  name: before.name,
  labels: before.labels,
  annotations: before.annotations,
})
