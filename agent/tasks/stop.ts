/** Asks a pod to end: the guest's init sends the app its stop signal, and spawn kills the VM after the time. */

import type { FastifyBaseLogger } from 'fastify'
import { SpawnError } from '../../native/spawn-client.ts'
import {
  type Caller,
  isFinal,
  type Pod,
  type TenantScope,
  TenantsError,
  type ToldToStop,
} from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import { spawnUnavailable } from './host.ts'
import { stopMsOf } from './launch-facts.ts'
import type { Pauses } from './pauses.ts'
import type { Ports } from './ports.ts'
import { actorOf, type Origin } from './record-parts.ts'
import { stopRequested, type Watch } from './watch.ts'

export interface StopCall {
  readonly scope: TenantScope
  readonly caller: Caller
  readonly origin: Origin
  readonly pod: Pod['id']
  /** From asking to killing; null: the pod's own. */
  readonly timeoutMs: number | null
}

type StopPorts = Pick<Ports, 'tenants' | 'spawn'> & {
  readonly watch: Watch
  readonly pauses: Pauses
  readonly log: Pick<FastifyBaseLogger, 'warn'>
}

/** Before anything else: whatever happens from here on, no rule starts the pod again. */
async function tell(ports: StopPorts, { scope, pod }: StopCall): Promise<ToldToStop> {
  const newest = await ports.tenants.newestStart(scope, pod)
  const early = newest.attempt === 0 && !isFinal(newest.state) && newest.state !== 'running'
  if (newest.restart === null || early) return { pod: newest, calledOff: false }
  try {
    return await ports.tenants.tellToStop(scope, pod)
  } catch (error) {
    // Of a pod that waits for its next start there is nothing else that could be stopped.
    if (error instanceof TenantsError || newest.restart.dueMs !== null) throw error
    ports.log.warn({ err: error, pod }, 'the store takes no note that a pod was told to stop')
    ports.watch.noteTold(newest.origin)
    return { pod: newest, calledOff: false }
  }
}

/**
 * Resolves when spawn took the request; an ended pod stays as it is, one that waits for its next start ends, and one
 * that is being started again is stopped as soon as it runs. Asking again is passed on to
 * spawn, for which the earliest of the times holds, and is no second record. Works while the audit log
 * cannot be written: stopping a pod must never depend on a disk.
 * @throws ApiError POD_STATE_CONFLICT, SPAWN_UNAVAILABLE
 */
export async function stop(ports: StopPorts, call: StopCall): Promise<Pod> {
  const { scope } = call
  const { pod, calledOff } = await tell(ports, call)
  const { id, state, stopAsked } = pod
  const timeoutMs = call.timeoutMs ?? stopMsOf(pod)
  const note = { scope, pod, actor: actorOf(call.caller, call.origin), timeoutMs }
  if (calledOff) await ports.watch.note(stopRequested(note))
  if (isFinal(state)) return pod
  if (state !== 'running' && !stopAsked) {
    const sentence = `Pod ${id} is ${state} and can be stopped when it runs. Try again.`
    throw new ApiError('POD_STATE_CONFLICT', sentence, { pod: id, state })
  }
  await ports.watch.noteStop(note)
  // restart.ts stops what was told to while it was being started.
  if (state !== 'running') return pod
  await ask(ports, id, timeoutMs)
  return await ports.tenants.newestStart(scope, id)
}

async function ask(ports: StopPorts, id: Pod['id'], timeoutMs: number): Promise<void> {
  try {
    await ports.spawn.stop(id, timeoutMs)
    ports.pauses.note(id, false)
  } catch (error) {
    if (error instanceof SpawnError && error.code.startsWith('SPAWN_'))
      throw spawnUnavailable(error)
    // Spawn has no such running pod: it has just ended, and its end is being written down.
    if (!(error instanceof SpawnError)) throw error
  }
}
