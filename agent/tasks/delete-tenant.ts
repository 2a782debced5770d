/**
 * Deletes a tenant that is suspended and whose pods have ended: rows, logs and cached images. Its records stay, as all do,
 * and whoever has the id after it sees nothing of it.
 */
import type { OperatorScope, TenantScope } from '../../tenants/index.ts'
import type { Ports } from './ports.ts'
import type { actorOf } from './record-parts.ts'

type DeletePorts = Pick<Ports, 'tenants' | 'audit' | 'files' | 'images'>

/** @throws TenantsError TENANT_IN_USE; AuditUnavailable: then its logs may be gone, and nothing else is */
export async function deleteTenant(
  ports: DeletePorts,
  operator: OperatorScope,
  { tenant }: TenantScope,
  actor: ReturnType<typeof actorOf>,
): Promise<void> {
  const left = await ports.tenants.leftPods(operator, tenant)
  // Files first, as for each pod: what a crash leaves is then a pod without a log.
  // oxlint-disable-next-line no-await-in-loop -- the disk is not to be busy with this
  for (const pod of left) await ports.files.remove(pod)
  await ports.tenants.deleteTenant(operator, tenant, () =>
    ports.audit.append({ type: 'tenant.deleted', tenant, actor }),
  )
  await ports.images.forget(tenant)
}
