/** The end of a tenant: everything that the database has of it, in one transaction. Records are elsewhere, and stay. */
import type { PodId, TenantId } from '../../policy/index.ts'
import { parsePodId } from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import { giveToHost } from './events.ts'
import type { Store } from './tables.ts'
import { selectTenant } from './tenants.ts'

const inUse = (sentence: string, facts: TenantsError['facts']): TenantsError =>
  new TenantsError('TENANT_IN_USE', sentence, facts)

/**
 * Ids of its starts, all of which have ended for good.
 * @throws TenantsError TENANT_NOT_FOUND; TENANT_IN_USE while it is not suspended, or has pods that may run
 */
export async function selectLeft(store: Store, id: TenantId): Promise<readonly PodId[]> {
  const { state } = await selectTenant(store, id)
  if (state !== 'suspended') {
    const sentence = `Tenant ${id} is ${state}. Suspend it, stop its pods, then delete it.`
    throw inUse(sentence, { state })
  }
  const rows = await store
    .selectFrom('pods')
    .select(['id', 'state', 'restart_due_ms'])
    .where('tenant', '=', id)
    .execute()
  const alive = rows.filter(
    (row) =>
      ['requested', 'launching', 'running'].includes(row.state) || row.restart_due_ms !== null,
  )
  if (alive.length > 0) {
    const sentence = `Tenant ${id} has ${alive.length} pods that have not ended for good. Stop them, then delete it.`
    throw inUse(sentence, { pods: alive.length })
  }
  return rows.map((row) => parsePodId(row.id))
}

const isForeignKey = (error: unknown): boolean =>
  error instanceof Error && error.message.includes('FOREIGN KEY constraint failed')

/** @throws as selectLeft, and TENANT_IN_USE while something else is kept for it, such as volumes or secrets */
export async function deleteTenant(store: Store, id: TenantId): Promise<void> {
  await selectLeft(store, id)
  for (const table of ['idempotency', 'tokens', 'restart_requests', 'published_ports'] as const) {
    // oxlint-disable-next-line no-await-in-loop -- one connection
    await store.deleteFrom(table).where('tenant', '=', id).execute()
  }
  await store.deleteFrom('pods').where('tenant', '=', id).execute()
  await giveToHost(store, id)
  try {
    await store.deleteFrom('tenants').where('id', '=', id).execute()
  } catch (error) {
    if (!isForeignKey(error)) throw error
    const sentence = `More than pods is kept for tenant ${id}, such as volumes, configs or secrets. Remove that, then delete it.`
    throw inUse(sentence, {})
  }
}
