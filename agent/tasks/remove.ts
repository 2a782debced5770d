/** Removes an ended pod: of each start the log, then the row. Its records stay, as all records do. */
import type { PodId } from '../../policy/index.ts'
import { isFinal, isOver, type TenantScope } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import type { Ports } from './ports.ts'

/** @throws TenantsError POD_NOT_FOUND; ApiError POD_STATE_CONFLICT while it has not ended */
export async function remove(
  ports: Pick<Ports, 'tenants' | 'files'>,
  scope: TenantScope,
  pod: PodId,
): Promise<void> {
  const starts = await ports.tenants.listStarts(scope, pod)
  const newest = starts.at(-1) ?? starts[0]
  if (!isOver(newest)) {
    const state = isFinal(newest.state) ? 'restarting' : newest.state
    const sentence = `Pod ${pod} is ${state}. Stop it, then remove it.`
    throw new ApiError('POD_STATE_CONFLICT', sentence, { pod, state })
  }
  // oxlint-disable-next-line no-await-in-loop -- the newest last: what a crash leaves is still listed
  for (const { id } of starts) await removeStart(ports, scope, id)
}

/** The files first: what a crash leaves is then a pod without a log, never files without a pod. */
export async function removeStart(
  ports: Pick<Ports, 'tenants' | 'files'>,
  scope: TenantScope,
  start: PodId,
): Promise<void> {
  await ports.files.remove(start)
  await ports.tenants.deletePod(scope, start)
}
