/**
 * Addresses of pods, part of the transaction that reserves their quota: a pod that holds an address holds a reservation,
 * and both go together. A tenant keeps its network's number for ever.
 */
import type { Transaction } from 'kysely'
import {
  NETWORK_NUMBER_MAX,
  NETWORK_NUMBER_MIN,
  POD_NUMBER_MAX,
  POD_NUMBER_MIN,
  type PodId,
  type PodPlace,
  podNetwork,
  Refusal,
} from '../../policy/index.ts'
import { type TenantScope, tenantNotFound } from '../scope.ts'
import type { Tables } from './tables.ts'

/** The least number from `min` to `max` that `taken` (in ascending order) has not; null when it has all. */
export function leastFree(taken: readonly number[], min: number, max: number): number | null {
  const gap = taken.findIndex((number, index) => number !== min + index)
  const least = min + (gap === -1 ? taken.length : gap)
  return least > max ? null : least
}

/** The tenant's network; its first pod makes it. @throws Refusal NETWORK_FULL */
async function numberOf(transaction: Transaction<Tables>, scope: TenantScope): Promise<number> {
  const tenant = await transaction
    .selectFrom('tenants')
    .select('network')
    .where('id', '=', scope.tenant)
    .executeTakeFirst()
  if (tenant === undefined) throw tenantNotFound()
  if (tenant.network !== null) return tenant.network
  const rows = await transaction
    .selectFrom('tenants')
    .select('network')
    .where('network', 'is not', null)
    .orderBy('network')
    .execute()
  const taken = rows.flatMap(({ network }) => (network === null ? [] : [network]))
  const network = leastFree(taken, NETWORK_NUMBER_MIN, NETWORK_NUMBER_MAX)
  if (network === null) {
    throw new Refusal(
      'NETWORK_FULL',
      `All ${NETWORK_NUMBER_MAX} networks of this host are other tenants'. Launch without a network, or on another host.`,
      { tenants: NETWORK_NUMBER_MAX },
    )
  }
  await transaction.updateTable('tenants').set({ network }).where('id', '=', scope.tenant).execute()
  return network
}

/**
 * Gives a pod that has its reservation an address of its tenant's network.
 * @throws Refusal NETWORK_FULL
 */
export async function connectIn(
  transaction: Transaction<Tables>,
  scope: TenantScope,
  pod: PodId,
): Promise<PodPlace> {
  const network = await numberOf(transaction, scope)
  const rows = await transaction
    .selectFrom('pods')
    .select('address')
    .where('tenant', '=', scope.tenant)
    .where('address', 'is not', null)
    .orderBy('address')
    .execute()
  const taken = rows.flatMap(({ address }) => (address === null ? [] : [address]))
  const address = leastFree(taken, POD_NUMBER_MIN, POD_NUMBER_MAX)
  if (address === null) {
    throw new Refusal(
      'NETWORK_FULL',
      `All ${taken.length} addresses of the tenant's network are taken. Stop pods, or launch without a network.`,
      { pods: taken.length },
    )
  }
  await transaction
    .updateTable('pods')
    .set({ address })
    .where('id', '=', pod)
    .where('tenant', '=', scope.tenant)
    .execute()
  return podNetwork(network, address)
}
