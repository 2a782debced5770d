/** Pods by what people call them: a name, an id, or the beginning of one. */
import { isPodName, type PodId, type PodName, parsePodId } from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import type { Pod } from '../pod.ts'
import type { TenantScope } from '../scope.ts'
import { podNotFound, selectStarts } from './restarts.ts'
import type { Store } from './tables.ts'

/** Shorter beginnings are the same for all pods of many years. */
const PREFIX = /^[0-9a-f][0-9a-f-]{3,35}$/u

/** The pod that has the name: the one that has not ended, or the last that had it. */
async function byName(store: Store, scope: TenantScope, name: string): Promise<PodId | null> {
  const row = await store
    .selectFrom('pods')
    .select('id')
    .where('tenant', '=', scope.tenant)
    .where('name', '=', name)
    .orderBy((order) => order('ended_ms', 'is', null).or('restart_due_ms', 'is not', null), 'desc')
    .orderBy('origin', 'desc')
    .limit(1)
    .executeTakeFirst()
  return row === undefined ? null : parsePodId(row.id)
}

/** @throws TenantsError POD_AMBIGUOUS */
async function byPrefix(store: Store, scope: TenantScope, prefix: string): Promise<PodId | null> {
  // A range, not LIKE, which no index serves. No character of an id comes behind f.
  const end = `${prefix}g`
  const rows = await store
    .selectFrom('pods')
    .select('origin')
    .distinct()
    .where('tenant', '=', scope.tenant)
    .where((any) =>
      any.or([
        any.and([any('id', '>=', prefix), any('id', '<', end)]),
        any.and([any('origin', '>=', prefix), any('origin', '<', end)]),
      ]),
    )
    .limit(2)
    .execute()
  const [first, second] = rows
  if (second !== undefined) {
    throw new TenantsError(
      'POD_AMBIGUOUS',
      `More than one pod begins with ${prefix}. Say more of the id.`,
    )
  }
  return first === undefined ? null : parsePodId(first.origin)
}

/**
 * The newest start of the pod that is meant.
 * @throws TenantsError POD_NOT_FOUND, POD_AMBIGUOUS
 */
export async function findPod(store: Store, scope: TenantScope, meant: string): Promise<Pod> {
  const id = isPodName(meant)
    ? await byName(store, scope, meant)
    : PREFIX.test(meant)
      ? await byPrefix(store, scope, meant)
      : null
  if (id === null) throw podNotFound()
  const starts = await selectStarts(store, scope, id)
  return starts.at(-1) ?? starts[0]
}

/** @throws TenantsError POD_NAME_TAKEN */
export async function refuseTaken(store: Store, scope: TenantScope, name: PodName): Promise<void> {
  const taken = await store
    .selectFrom('pods')
    .select('origin')
    .where('tenant', '=', scope.tenant)
    .where('name', '=', name)
    .where((any) => any.or([any('ended_ms', 'is', null), any('restart_due_ms', 'is not', null)]))
    .executeTakeFirst()
  if (taken === undefined) return
  throw new TenantsError(
    'POD_NAME_TAKEN',
    `Pod ${taken.origin} has the name ${name} and has not ended. Stop it, rename one of them, or take another name.`,
    { pod: taken.origin },
  )
}

/** @throws TenantsError POD_NOT_FOUND, POD_NAME_TAKEN */
export async function renamePod(
  store: Store,
  scope: TenantScope,
  { pod, name }: { readonly pod: PodId; readonly name: PodName },
): Promise<Pod> {
  return await store.transaction().execute(async (transaction) => {
    const starts = await selectStarts(transaction, scope, pod)
    const newest = starts.at(-1) ?? starts[0]
    if (newest.name === name) return newest
    await refuseTaken(transaction, scope, name)
    await transaction
      .updateTable('pods')
      .set({ name })
      .where('tenant', '=', scope.tenant)
      .where('origin', '=', newest.origin)
      .execute()
    return { ...newest, name }
  })
}
