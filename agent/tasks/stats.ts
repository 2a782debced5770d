/** What a running pod takes of the host, and what its VMM counted. */
import type { Usage } from '../../native/counters.ts'
import type { VmmMetrics } from '../../native/spawn-answers.ts'
import { type SpawnClient, SpawnError } from '../../native/spawn-client.ts'
import type { Pod, TenantScope } from '../../tenants/index.ts'
import { refusalOf, runningPod } from './changes.ts'
import type { Ports } from './ports.ts'

export interface Stats {
  readonly pod: string
  readonly state: 'running' | 'paused'
  readonly time: string
  readonly usage: Usage
  /** null while the pod is paused: its VMM stands still as well. */
  readonly counters: VmmMetrics | null
}

async function countersOf(spawn: SpawnClient, pod: string): Promise<VmmMetrics | null> {
  try {
    return await spawn.metrics(pod)
  } catch (error) {
    if (error instanceof SpawnError && error.code === 'POD_PAUSED') return null
    throw error
  }
}

/** @throws ApiError POD_STATE_CONFLICT, SPAWN_UNAVAILABLE */
export async function stats(
  ports: Pick<Ports, 'tenants' | 'spawn' | 'now'>,
  call: { readonly scope: TenantScope; readonly pod: Pod['id'] },
): Promise<Stats> {
  const { id } = await runningPod(ports, call)
  try {
    const usage = await ports.spawn.usage(id)
    const counters = await countersOf(ports.spawn, id)
    const time = new Date(ports.now()).toISOString()
    return { pod: id, state: counters === null ? 'paused' : 'running', time, usage, counters }
  } catch (error) {
    throw refusalOf(id, error)
  }
}
