/**
 * Starts that have ended and wait for nothing: which are too many of their tenant, and which ended long ago. Triggers count
 * them for each tenant (migrations.ts), so that nobody has to look through all of them to know that none is too many.
 */
import { type PodId, parsePodId, parseTenantId } from '../../policy/index.ts'
import { systemScope, type TenantScope } from '../scope.ts'
import type { Store } from './tables.ts'

const FINAL = ['exited', 'failed', 'refused'] as const

export interface EndedPod {
  readonly scope: TenantScope
  readonly pod: PodId
  /** ms since 1970. */
  readonly endedMs: number
}

const endedOf = (row: { tenant: string; id: string; ended_ms: number | null }): EndedPod => ({
  scope: systemScope(parseTenantId(row.tenant)),
  pod: parsePodId(row.id),
  endedMs: row.ended_ms ?? 0,
})

/** Starts beyond the `keep` newest that have ended of their tenant, at most `limit` of them. */
export async function selectSurplus(
  store: Store,
  { keep, limit }: { readonly keep: number; readonly limit: number },
): Promise<readonly EndedPod[]> {
  const tenants = await store
    .selectFrom('tenants')
    .select('id')
    .where('ended_pods', '>', keep)
    .limit(limit)
    .execute()
  const found: EndedPod[] = []
  for (const { id } of tenants) {
    if (found.length >= limit) break
    // oxlint-disable-next-line no-await-in-loop -- one connection
    const rows = await store
      .selectFrom('pods')
      .select(['id', 'tenant', 'ended_ms'])
      .where('tenant', '=', id)
      .where('state', 'in', FINAL)
      .where('restart_due_ms', 'is', null)
      .orderBy('id', 'desc')
      .limit(limit - found.length)
      .offset(keep)
      .execute()
    found.push(...rows.map(endedOf))
  }
  return found
}

/** Pods that ended for good at `untilMs` or before, the oldest first; `pod` is the pod's newest start. */
export async function selectOld(
  store: Store,
  { untilMs, limit }: { readonly untilMs: number; readonly limit: number },
): Promise<readonly EndedPod[]> {
  const rows = await store
    .selectFrom('pods')
    .select(['id', 'tenant', 'ended_ms'])
    .where('ended_ms', '<=', untilMs)
    .where('state', 'in', FINAL)
    .where('restart_due_ms', 'is', null)
    // A later start of the same pod says how the pod is.
    .where((any) =>
      any.not(
        any.exists(
          any
            .selectFrom('pods as later')
            .select('later.id')
            .whereRef('later.tenant', '=', 'pods.tenant')
            .whereRef('later.origin', '=', 'pods.origin')
            .whereRef('later.attempt', '>', 'pods.attempt'),
        ),
      ),
    )
    .orderBy('ended_ms')
    .limit(limit)
    .execute()
  return rows.map(endedOf)
}
