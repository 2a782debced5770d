/** Has a pod stand still where it is, and go on. Its memory and its quota stay taken. */
import type { Pod } from '../../tenants/index.ts'
import { type ChangeCall, type ChangePorts, change, runningPod } from './changes.ts'
import { actorOf } from './record-parts.ts'

/**
 * Resolves when spawn has done it. Each request is on record, one that changes nothing too: what the agent remembers of
 * a pod may be older than what spawn is about to do.
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
  await change(ports, call, record, async () => {
    await (paused ? ports.spawn.pause(id) : ports.spawn.resume(id))
  })
  ports.pauses.note(id, paused)
  return await ports.tenants.getPod(scope, id)
}
