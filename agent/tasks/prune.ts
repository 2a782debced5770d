/**
 * Forgets the oldest of the pods that have ended. Each keeps a log of megabytes, a quota counts only
 * what runs, and a tenant that launches and never removes would fill the disk that the audit log needs.
 */
import { type TenantScope, TenantsError } from '../../tenants/index.ts'
import type { Ports } from './ports.ts'
import { removeStart } from './remove.ts'

/** Of one tenant: their logs together are at most a gibibyte. */
export const ENDED_PODS_MAX = 256
/** In one go; the next round does the rest. */
const AT_ONCE = 256

/** Removes what is beyond `keep` of each tenant. Records stay, as all records do. */
export async function prune(
  ports: Pick<Ports, 'tenants' | 'files'>,
  keep: number = ENDED_PODS_MAX,
): Promise<void> {
  for (const { scope, pod } of await ports.tenants.surplusPods(keep, AT_ONCE)) {
    // oxlint-disable-next-line no-await-in-loop -- the disk is not to be busy with this
    await removeQuietly(ports, scope, pod)
  }
}

/** Somebody may have been quicker. */
async function removeQuietly(
  ports: Pick<Ports, 'tenants' | 'files'>,
  scope: TenantScope,
  pod: Parameters<typeof removeStart>[2],
): Promise<void> {
  try {
    await removeStart(ports, scope, pod)
  } catch (error) {
    if (!(error instanceof TenantsError) || error.code !== 'POD_NOT_FOUND') throw error
  }
}
