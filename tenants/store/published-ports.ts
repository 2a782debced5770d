/** Ports of the host that pods have, part of the transaction that reserves their quota, and given back with it. */
import type { Transaction } from 'kysely'
import { allOf, type PodId, type PublishedPort, Refusal } from '../../policy/index.ts'
import type { TenantScope } from '../scope.ts'
import type { Tables } from './tables.ts'

/**
 * Two pods have one port only at different addresses, neither of which stands for all.
 * @throws Refusal PORT_TAKEN, which says nothing of who has it
 */
export async function publishIn(
  transaction: Transaction<Tables>,
  scope: TenantScope,
  pod: PodId,
  ports: readonly PublishedPort[],
): Promise<void> {
  for (const { address, host, protocol } of ports) {
    const all = allOf(address)
    // oxlint-disable-next-line no-await-in-loop -- one transaction is one thing after the other
    const taken = await transaction
      .selectFrom('published_ports')
      .select('address')
      .where('protocol', '=', protocol)
      .where('port', '=', host)
      .execute()
    const conflicts = (other: string): boolean =>
      other === address || (allOf(other) === all && (other === all || address === all))
    if (taken.some((row) => conflicts(row.address))) throw portTaken({ address, host, protocol })
    // oxlint-disable-next-line no-await-in-loop -- the next one must see it
    await transaction
      .insertInto('published_ports')
      .values({ protocol, address, port: host, tenant: scope.tenant, pod })
      .execute()
  }
}

const portTaken = ({ address, host: port, protocol }: Omit<PublishedPort, 'pod'>): Refusal =>
  new Refusal(
    'PORT_TAKEN',
    `Port ${port}/${protocol} of ${address} is in use on this host. Take another one, or publish at another address.`,
    { address, port, protocol },
  )

/** Gives back what a pod has. */
export async function unpublishIn(
  transaction: Transaction<Tables>,
  scope: TenantScope,
  pod: PodId,
): Promise<void> {
  await transaction
    .deleteFrom('published_ports')
    .where('tenant', '=', scope.tenant)
    .where('pod', '=', pod)
    .execute()
}
