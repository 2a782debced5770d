/** Removes an ended pod: its log, then its row. Its records stay, as all records do. */
import type { PodId } from '../../policy/index.ts'
import { isFinal, type TenantScope } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import type { Ports } from './ports.ts'

/** @throws TenantsError POD_NOT_FOUND; ApiError POD_STATE_CONFLICT while it has not ended */
export async function remove(
  ports: Pick<Ports, 'tenants' | 'files'>,
  scope: TenantScope,
  pod: PodId,
): Promise<void> {
  const { state } = await ports.tenants.getPod(scope, pod)
  if (!isFinal(state)) {
    const sentence = `Pod ${pod} is ${state}. Stop it, then remove it.`
    throw new ApiError('POD_STATE_CONFLICT', sentence, { pod, state })
  }
  // The files first: what a crash leaves is then a pod without a log, never files without a pod.
  await ports.files.remove(pod)
  await ports.tenants.deletePod(scope, pod)
}
