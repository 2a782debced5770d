/**
 * Reservation of quotas. One transaction changes pod and tenant together: the update of the tenant
 * carries its own condition, so of any number of launches at once only those that fit get through,
 * and a crash between the two leaves neither.
 */
import type { Transaction } from 'kysely'
import {
  type Charge,
  type PodId,
  type PodPlace,
  type PublishedPort,
  quotaRefusal,
  Refusal,
} from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import { type TenantScope, tenantNotFound } from '../scope.ts'
import { connectIn } from './networks.ts'
import { publishIn, unpublishIn } from './published-ports.ts'
import { quotasOf } from './rows.ts'
import type { Store, Tables, TenantRow } from './tables.ts'

/** What a launch wants to hold. */
export interface Wanted {
  readonly charge: Charge
  readonly networked: boolean
  readonly ports: readonly PublishedPort[]
}

/**
 * Counts the charge against the tenant, once per pod, while the pod is `requested`; and gives the pod its place on the
 * tenant's network, if it is to have one.
 * @throws Refusal QUOTA_EXCEEDED, TENANT_SUSPENDED, NETWORK_FULL, PORT_TAKEN
 * @throws TenantsError POD_STATE_CONFLICT when there is no such pod, or it has its reservation
 */
export async function reserve(
  store: Store,
  scope: TenantScope,
  pod: PodId,
  { charge, networked, ports }: Wanted,
): Promise<PodPlace | null> {
  return await store.transaction().execute(async (transaction) => {
    const marked = await transaction
      .updateTable('pods')
      .set({ reserved: 1, vcpus: charge.vcpus, memory_mib: charge.memoryMib })
      .where('id', '=', pod)
      .where('tenant', '=', scope.tenant)
      .where('state', '=', 'requested')
      .where('reserved', '=', 0)
      .returning(['restart_rule', 'attempt'])
      .executeTakeFirst()
    if (marked === undefined) {
      throw new TenantsError(
        'POD_STATE_CONFLICT',
        `Pod ${pod} is not waiting for its reservation.`,
        { pod },
      )
    }
    if (marked.restart_rule !== null && marked.attempt === 0) await refuseMany(transaction, scope)
    const counted = await transaction
      .updateTable('tenants')
      .set((row) => ({
        used_vcpus: row('used_vcpus', '+', charge.vcpus),
        used_memory_mib: row('used_memory_mib', '+', charge.memoryMib),
        used_pods: row('used_pods', '+', 1),
      }))
      .where('id', '=', scope.tenant)
      .where('state', '=', 'active')
      .where((row) => row(row('used_vcpus', '+', charge.vcpus), '<=', row.ref('quota_vcpus')))
      .where((row) =>
        row(row('used_memory_mib', '+', charge.memoryMib), '<=', row.ref('quota_memory_mib')),
      )
      .where((row) => row(row('used_pods', '+', 1), '<=', row.ref('quota_pods')))
      .returning('id')
      .executeTakeFirst()
    // Thrown inside, so that the mark on the pod is undone too.
    if (counted === undefined) throw await whyNot(transaction, scope, charge)
    await publishIn(transaction, scope, pod, ports)
    return networked ? await connectIn(transaction, scope, pod) : null
  })
}

/**
 * Pods between two starts hold no quota, but a row, a request and a log each: a tenant that has as many of them as it may
 * have pods begins no further one that is started again.
 * @throws Refusal QUOTA_EXCEEDED
 */
async function refuseMany(transaction: Transaction<Tables>, scope: TenantScope): Promise<void> {
  const { waiting, limit } = await transaction
    .selectFrom('pods')
    .innerJoin('tenants', 'tenants.id', 'pods.tenant')
    .select((row) => [
      row.fn.countAll<number>().as('waiting'),
      row.fn.max('tenants.quota_pods').as('limit'),
    ])
    .where('pods.tenant', '=', scope.tenant)
    .where('pods.restart_due_ms', 'is not', null)
    .executeTakeFirstOrThrow()
  if (limit !== null && waiting >= limit) throw quotaRefusal('pods', 1, { used: waiting, limit })
}

async function whyNot(
  transaction: Transaction<Tables>,
  scope: TenantScope,
  charge: Charge,
): Promise<Error> {
  const row = await transaction
    .selectFrom('tenants')
    .selectAll()
    .where('id', '=', scope.tenant)
    .executeTakeFirst()
  if (row === undefined) return tenantNotFound()
  return (
    overQuota(row, charge) ??
    new Refusal(
      'TENANT_SUSPENDED',
      `Tenant ${scope.tenant} is suspended and launches nothing. Its operator can resume it.`,
      { tenant: scope.tenant },
    )
  )
}

function overQuota(row: TenantRow, charge: Charge): Refusal | null {
  const { pods, vcpus, memoryMib } = quotasOf(row)
  if (pods.used + 1 > pods.limit) return quotaRefusal('pods', 1, pods)
  if (vcpus.used + charge.vcpus > vcpus.limit) return quotaRefusal('vcpus', charge.vcpus, vcpus)
  if (memoryMib.used + charge.memoryMib > memoryMib.limit) {
    return quotaRefusal('memoryMib', charge.memoryMib, memoryMib)
  }
  return null
}

/**
 * Gives back what a pod holds; a second time does nothing. Part of the transaction that makes the
 * pod's state final, so an ended pod never holds anything and a running one never holds nothing.
 */
export async function releaseIn(
  transaction: Transaction<Tables>,
  scope: TenantScope,
  pod: PodId,
): Promise<void> {
  const held = await transaction
    .updateTable('pods')
    .set({ reserved: 0, address: null })
    .where('id', '=', pod)
    .where('tenant', '=', scope.tenant)
    .where('reserved', '=', 1)
    .returning(['vcpus', 'memory_mib'])
    .executeTakeFirst()
  if (held === undefined) return
  await unpublishIn(transaction, scope, pod)
  await transaction
    .updateTable('tenants')
    .set((row) => ({
      used_vcpus: row('used_vcpus', '-', held.vcpus),
      used_memory_mib: row('used_memory_mib', '-', held.memory_mib),
      used_pods: row('used_pods', '-', 1),
    }))
    .where('id', '=', scope.tenant)
    .execute()
}
