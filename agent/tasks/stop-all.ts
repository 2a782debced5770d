/**
 * Stops every pod before the host goes down: asks each to end, and waits until their ends are on
 * record. Bounded: what has not ended by then is killed with spawn, and found lost at the next start.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Pod, TenantScope } from '../../tenants/index.ts'
import type { Ports } from './ports.ts'
import { AGENT } from './record-parts.ts'
import type { Watch } from './watch.ts'

const LOOK_MS = 100
/** Pods asked in one round: spawn takes 128 connections. */
const AT_ONCE_MAX = 64
/** From asking a pod to killing it. */
const POD_MS = 10_000
/** For all of them, their records included. */
const ALL_MS = 15_000

type StopPorts = Pick<Ports, 'tenants' | 'spawn' | 'log'> & { readonly watch: Watch }

interface Running {
  readonly scope: TenantScope
  readonly pod: Pod
}

async function ask(ports: StopPorts, { scope, pod }: Running): Promise<void> {
  await ports.watch.noteStop({ scope, pod, actor: AGENT, timeoutMs: POD_MS })
  try {
    await ports.spawn.stop(pod.id, POD_MS)
  } catch (error) {
    ports.log.warn({ err: error, pod: pod.id }, 'a pod was not asked to stop')
  }
}

/** Nothing must be launched any more; a launch under way is stopped as soon as it runs. */
export async function stopAll(ports: StopPorts): Promise<void> {
  const until = performance.now() + ALL_MS
  const asked = new Set<Pod['id']>()
  for (;;) {
    const left = await ports.tenants.unfinishedPods()
    if (left.length === 0) return
    if (performance.now() >= until) {
      ports.log.error({ pods: left.map(({ pod }) => pod.id) }, 'pods had not ended in time')
      return
    }
    const fresh = left.filter(({ pod }) => pod.state === 'running' && !asked.has(pod.id))
    const now = fresh.slice(0, AT_ONCE_MAX)
    for (const { pod } of now) asked.add(pod.id)
    await Promise.all(now.map((running) => ask(ports, running)))
    await delay(LOOK_MS)
  }
}
