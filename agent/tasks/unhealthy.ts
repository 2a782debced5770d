/**
 * What an unhealthy pod comes to: it is stopped, if that was asked for, and a record says so before. A restart is the
 * rule's, as after any end (docs/decisions/0027), and an end of this kind is no success whatever the app's code.
 */
import type { PodId } from '../../policy/index.ts'
import type { TenantScope } from '../../tenants/index.ts'
import { stoppedUnhealthy, unhealthyActionOf, unhealthyEnd } from './health-facts.ts'
import { stopMsOf } from './launch-facts.ts'
import type { Ports } from './ports.ts'
import type { Watch } from './watch.ts'

type UnhealthyPorts = Pick<Ports, 'tenants' | 'spawn' | 'log' | 'now'> & { readonly watch: Watch }

/** Stops what is unhealthy; once, whoever hears of it again. Works while the log cannot be written, as stopping does. */
async function act(ports: UnhealthyPorts, scope: TenantScope, id: PodId): Promise<void> {
  const pod = await ports.tenants.getPod(scope, id)
  const action = unhealthyActionOf(pod)
  const health = ports.watch.health.of(id)
  const isIll = pod.state === 'running' && health?.state === 'unhealthy'
  if (action === 'none' || !isIll || pod.stopAsked || pod.stopRecorded) return
  if (unhealthyEnd(pod) === null) {
    // Before anything else: whatever happens from here on, no rule starts it again.
    if (action === 'stop' && pod.restart !== null) await ports.tenants.tellToStop(scope, id)
    await ports.watch.note({
      type: 'launch.unhealthy',
      launch_id: id,
      tenant: scope.tenant,
      action,
      answer: health.answer,
      failing_streak: health.streak,
      since: new Date(health.sinceMs).toISOString(),
    })
    const facts = stoppedUnhealthy(pod, health, ports.watch.health.wellMs(id, ports.now()))
    await ports.tenants.notePod(scope, id, { facts })
  }
  await ports.spawn.stop(id, stopMsOf(pod))
}

/** From now on. */
export function stopUnhealthy(ports: UnhealthyPorts): void {
  ports.watch.health.on('unhealthy', (scope, pod) => {
    act(ports, scope, pod).catch((error: unknown) => {
      // It may just have ended. Otherwise it is asked again with the next stream, and stays unhealthy in every list.
      ports.log.warn({ err: error, pod }, 'an unhealthy pod was not stopped')
    })
  })
}
