/** Sends a signal to a pod's first process. Its guest's init does it, so a guest that is wedged needs `stop`. */
import { SIGKILL, type Signal } from '../../policy/index.ts'
import type { Pod } from '../../tenants/index.ts'
import { type ChangeCall, type ChangePorts, change, conflict, runningPod } from './changes.ts'
import { stopSignalOf } from './launch-facts.ts'
import { actorOf } from './record-parts.ts'
import type { Watch } from './watch.ts'

/**
 * On record before it is sent. KILL and the pod's own stop signal tell it to stop: no rule starts it again then. Nothing
 * says whether the process did anything about the signal: without a handler, a first process notices KILL alone.
 * @throws ApiError POD_STATE_CONFLICT, TOO_MANY_REQUESTS
 */
export async function kill(
  ports: ChangePorts & { readonly watch: Watch },
  call: ChangeCall & { readonly signal: Signal },
): Promise<Pod> {
  const { scope, pod: id, signal } = call
  const pod = await runningPod(ports, call)
  if (ports.pauses.has(id)) throw conflict(id, 'paused')
  const record = {
    type: 'launch.signal_requested',
    launch_id: id,
    tenant: scope.tenant,
    actor: actorOf(call.caller, call.origin),
    signal,
  } as const
  await change(ports, call, record, async () => {
    const stream = ports.watch.stream(id)
    if (stream === null || stream.closed) throw conflict(id, 'ending')
    const isStop = signal === SIGKILL || signal === stopSignalOf(pod)
    if (isStop && pod.restart !== null) await ports.tenants.tellToStop(scope, id)
    stream.signal(signal)
  })
  return await ports.tenants.newestStart(scope, id)
}
