/** The tenants table, but for the use of quotas, which is quota.ts. */
import type { Egress, ImageRule, PortRange, TenantId, Trust } from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import { tenantNotFound } from '../scope.ts'
import {
  type NewTenant,
  parseDisplay,
  parseQuotaLimits,
  type QuotaLimits,
  type Tenant,
  type TenantState,
} from '../tenant.ts'
import { egressColumn, portsColumn, tenantOf } from './rows.ts'
import type { Store } from './tables.ts'

/** @throws TenantsError TENANT_EXISTS */
export async function insertTenant(
  store: Store,
  tenant: NewTenant,
  nowMs: number,
): Promise<Tenant> {
  const quotas = parseQuotaLimits(tenant.quotas)
  const row = await store
    .insertInto('tenants')
    .values({
      id: tenant.id,
      display: parseDisplay(tenant.display),
      trust: tenant.trust,
      state: 'active',
      created_ms: nowMs,
      image_rule: tenant.imageRule?.text ?? null,
      image_rule_digest: tenant.imageRule?.digest ?? null,
      quota_vcpus: quotas.vcpus,
      quota_memory_mib: quotas.memoryMib,
      quota_pods: quotas.pods,
      used_vcpus: 0,
      used_memory_mib: 0,
      used_pods: 0,
      ended_pods: 0,
      quota_launches_per_minute: quotas.launchesPerMinute,
      quota_volumes: quotas.volumes,
      quota_volume_mib: quotas.volumeMib,
      egress: egressColumn(tenant.egress),
      ports: portsColumn(tenant.ports),
    })
    .onConflict((conflict) => conflict.column('id').doNothing())
    .returningAll()
    .executeTakeFirst()
  if (row !== undefined) return tenantOf(row)
  throw new TenantsError(
    'TENANT_EXISTS',
    `Tenant ${tenant.id} exists already: \`tenant show\` prints it, \`tenant change\` changes it.`,
    { tenant: tenant.id },
  )
}

/** @throws TenantsError TENANT_NOT_FOUND */
export async function selectTenant(store: Store, id: TenantId): Promise<Tenant> {
  const row = await store.selectFrom('tenants').selectAll().where('id', '=', id).executeTakeFirst()
  if (row === undefined) throw tenantNotFound()
  return tenantOf(row)
}

/** By id, at most `limit`, those after `after`. */
export async function selectTenants(
  store: Store,
  page: { readonly limit: number; readonly after: TenantId | null },
): Promise<readonly Tenant[]> {
  const rows = await store
    .selectFrom('tenants')
    .selectAll()
    .where('id', '>', page.after ?? '')
    .orderBy('id')
    .limit(page.limit)
    .execute()
  return rows.map(tenantOf)
}

/** What operators change of a tenant; an absent member stays as it is. */
export interface TenantChanges {
  readonly display?: string
  readonly trust?: Trust
  readonly state?: TenantState
  readonly imageRule?: ImageRule
  /** Below what is in use is allowed: nothing is stopped, and nothing more starts. */
  readonly quotas?: Partial<QuotaLimits>
  /** Pods run on with what they have. */
  readonly egress?: Egress | null
  /** Likewise. */
  readonly ports?: readonly PortRange[]
}

const limitsOf = ({ quotas, launchesPerMinute, volumes, volumeMib }: Tenant): QuotaLimits => ({
  vcpus: quotas.vcpus.limit,
  memoryMib: quotas.memoryMib.limit,
  pods: quotas.pods.limit,
  launchesPerMinute,
  volumes,
  volumeMib,
})

/**
 * @param store in a transaction: what stays is read, and written again
 * @throws TenantsError TENANT_NOT_FOUND
 */
export async function updateTenant(
  store: Store,
  id: TenantId,
  changes: TenantChanges,
): Promise<Tenant> {
  const { display, trust, state, imageRule, quotas, egress, ports } = changes
  const limits =
    quotas === undefined
      ? null
      : parseQuotaLimits({ ...limitsOf(await selectTenant(store, id)), ...quotas })
  const row = await store
    .updateTable('tenants')
    .set({
      ...(display === undefined ? {} : { display: parseDisplay(display) }),
      ...(trust === undefined ? {} : { trust }),
      ...(state === undefined ? {} : { state }),
      ...(imageRule === undefined
        ? {}
        : { image_rule: imageRule.text, image_rule_digest: imageRule.digest }),
      ...(limits === null
        ? {}
        : {
            quota_vcpus: limits.vcpus,
            quota_memory_mib: limits.memoryMib,
            quota_pods: limits.pods,
            quota_launches_per_minute: limits.launchesPerMinute,
            quota_volumes: limits.volumes,
            quota_volume_mib: limits.volumeMib,
          }),
      ...(egress === undefined ? {} : { egress: egressColumn(egress) }),
      ...(ports === undefined ? {} : { ports: portsColumn(ports) }),
      // So that an empty change is an update too, and finds out whether the tenant exists.
      id,
    })
    .where('id', '=', id)
    .returningAll()
    .executeTakeFirst()
  if (row === undefined) throw tenantNotFound()
  return tenantOf(row)
}
