/**
 * Deletes a tenant that is suspended and whose pods have ended: rows, logs and cached images. Its records stay, as all do,
 * and whoever has the id after it sees nothing of it.
 */
import type { OperatorScope, TenantScope } from '../../tenants/index.ts'
import type { LiveTokens } from '../live-tokens.ts'
import type { Ports } from './ports.ts'
import type { actorOf } from './record-parts.ts'
import type { Refusals } from './refusals.ts'

export type DeletePorts = Pick<Ports, 'tenants' | 'audit' | 'files' | 'images'> & {
  readonly live: LiveTokens
  readonly refusals: Refusals
}

/**
 * The rows go last: a crash leaves a tenant that can be deleted again, and never files that whoever has the id next could
 * come by. Nothing is gone before it is known that all of it may, and is on record.
 * @throws TenantsError TENANT_IN_USE; AuditUnavailable; nothing is deleted then
 */
export async function deleteTenant(
  ports: DeletePorts,
  operator: OperatorScope,
  scope: TenantScope,
  actor: ReturnType<typeof actorOf>,
): Promise<void> {
  const { tenant } = scope
  const left = await ports.tenants.leftPods(operator, tenant)
  const tokens = await ports.tenants.listTokens(scope)
  await ports.refusals.flush(tenant)
  await ports.tenants.deleteTenant(operator, tenant, async () => {
    await ports.audit.append({ type: 'tenant.deleted', tenant, actor })
    // oxlint-disable-next-line no-await-in-loop -- the disk is not to be busy with this
    for (const pod of left) await ports.files.remove(pod)
    await ports.images.forget(tenant)
  })
  // Streams that were begun with them are of nobody's events now.
  for (const { jti } of tokens) ports.live.end(jti)
}
