/** Asks a pod to end: the guest's init passes TERM on, and spawn kills the VM after the time. */
import { SpawnError } from '../../native/spawn-client.ts'
import { type Caller, isFinal, type Pod, type TenantScope } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import { spawnUnavailable } from './host.ts'
import type { Pauses } from './pauses.ts'
import type { Ports } from './ports.ts'
import { actorOf, type Origin } from './record-parts.ts'
import type { Watch } from './watch.ts'

export interface StopCall {
  readonly scope: TenantScope
  readonly caller: Caller
  readonly origin: Origin
  readonly pod: Pod['id']
  /** From asking to killing. */
  readonly timeoutMs: number
}

/**
 * Resolves when spawn took the request; an ended pod stays as it is. Asking again is passed on to
 * spawn, for which the earliest of the times holds, and is no second record. Works while the audit log
 * cannot be written: stopping a pod must never depend on a disk.
 * @throws ApiError POD_STATE_CONFLICT, SPAWN_UNAVAILABLE
 */
export async function stop(
  ports: Pick<Ports, 'tenants' | 'spawn'> & { readonly watch: Watch; readonly pauses: Pauses },
  call: StopCall,
): Promise<Pod> {
  const { scope, pod: id } = call
  const pod = await ports.tenants.getPod(scope, id)
  if (isFinal(pod.state)) return pod
  if (pod.state !== 'running') {
    const sentence = `Pod ${id} is ${pod.state} and can be stopped when it runs. Try again.`
    throw new ApiError('POD_STATE_CONFLICT', sentence, { pod: id, state: pod.state })
  }
  const actor = actorOf(call.caller, call.origin)
  await ports.watch.noteStop({ scope, pod, actor, timeoutMs: call.timeoutMs })
  try {
    await ports.spawn.stop(id, call.timeoutMs)
    ports.pauses.note(id, false)
  } catch (error) {
    if (error instanceof SpawnError && error.code.startsWith('SPAWN_'))
      throw spawnUnavailable(error)
    // Spawn has no such running pod: it has just ended, and its end is being written down.
    if (!(error instanceof SpawnError)) throw error
  }
  return await ports.tenants.getPod(scope, id)
}
