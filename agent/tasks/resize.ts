/** More scratch disk for a pod that runs. It never gets smaller, and what it takes ends with the pod. */
import { isCanonicalObject } from '../../policy/canonical.ts'
import { Refusal } from '../../policy/index.ts'
import type { Pod } from '../../tenants/index.ts'
import { Turns } from '../turns.ts'
import { type ChangeCall, type ChangePorts, change, refusalOf, runningPod } from './changes.ts'
import { actorOf } from './record-parts.ts'

/** Scratch disks of a tenant's running pods, together. */
export const SCRATCH_BYTES_MAX: number = 16 * 2 ** 30

export interface ResizeCall extends ChangeCall {
  /** All bytes of the disk, in whole blocks of 4096. */
  readonly scratchBytes: number
}

/** One at a time for each tenant: what one has taken the next must see. */
const turns = new Turns()

/** @throws Refusal QUOTA_EXCEEDED */
async function checkQuota(ports: ChangePorts, call: ResizeCall): Promise<void> {
  const { scope, pod, scratchBytes } = call
  const disks = (await ports.spawn.list()).filter((one) => one.tenant === scope.tenant)
  const sizeOf = (keep: (id: string) => boolean): number =>
    disks.reduce((sum, one) => sum + (keep(one.pod) ? (one.scratch_bytes ?? 0) : 0), 0)
  const [used, own] = [sizeOf(() => true), sizeOf((id) => id === pod)]
  const asked = scratchBytes - own
  if (asked <= 0 || used + asked <= SCRATCH_BYTES_MAX) return
  const left = Math.max(0, SCRATCH_BYTES_MAX - used)
  throw new Refusal(
    'QUOTA_EXCEEDED',
    `The disks of a tenant's running pods may have ${SCRATCH_BYTES_MAX} bytes together; ${left} are left, and ${asked} more were asked for. Stop pods, or ask for less.`,
    { what: 'scratch_bytes', asked, used, limit: SCRATCH_BYTES_MAX },
  )
}

async function grow(ports: ChangePorts, call: ResizeCall): Promise<Pod> {
  const { scope, pod: id, scratchBytes } = call
  await runningPod(ports, call)
  await checkQuota(ports, call).catch((error: unknown) => {
    throw refusalOf(id, error)
  })
  const record = {
    type: 'launch.resize_requested',
    launch_id: id,
    tenant: scope.tenant,
    actor: actorOf(call.caller, call.origin),
    scratch_bytes: scratchBytes,
  } as const
  await change(ports, call, record, () => ports.spawn.resize(id, scratchBytes))
  const { facts } = await ports.tenants.getPod(scope, id)
  const noted = { ...(isCanonicalObject(facts) ? facts : {}), scratch_bytes: scratchBytes }
  return await ports.tenants.notePod(scope, id, { facts: noted })
}

/**
 * Resolves when the guest has grown its file system.
 * @throws ApiError POD_STATE_CONFLICT, SCRATCH_SHRINK, SCRATCH_TOO_LARGE, HOST_FULL, RESIZE_FAILED,
 * RESIZE_UNCONFIRMED, TOO_MANY_REQUESTS, SPAWN_UNAVAILABLE
 * @throws Refusal QUOTA_EXCEEDED
 */
export const resize = (ports: ChangePorts, call: ResizeCall): Promise<Pod> =>
  turns.run(call.scope.tenant, () => grow(ports, call))
