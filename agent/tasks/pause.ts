/** Has a pod stand still where it is, and go on. Its memory and its quota stay taken. */
import type { Pod } from '../../tenants/index.ts'
import { type ChangeCall, type ChangePorts, change, runningPod } from './changes.ts'
import { actorOf } from './record-parts.ts'

/**
 * Resolves when spawn has done it. Asking again is passed on, and is no second record.
 * @throws ApiError POD_STATE_CONFLICT, PAUSE_NOT_AVAILABLE, TOO_MANY_REQUESTS, SPAWN_UNAVAILABLE
 */
export async function setPaused(
  ports: ChangePorts,
  call: ChangeCall,
  paused: boolean,
): Promise<Pod> {
  const { scope, pod: id } = call
  await runningPod(ports, call)
  const record = {
    type: paused ? 'launch.pause_requested' : 'launch.resume_requested',
    launch_id: id,
    tenant: scope.tenant,
    actor: actorOf(call.caller, call.origin),
  } as const
  const isNew = ports.pauses.has(id) !== paused
  await change(ports, call, isNew ? record : null, async () => {
    await (paused ? ports.spawn.pause(id) : ports.spawn.resume(id))
  })
  ports.pauses.note(id, paused)
  return await ports.tenants.getPod(scope, id)
}
