/**
 * Makes the store, the log and what runs agree: at the start, after whatever ended the agent before,
 * and every few seconds, for what could not be finished when it happened.
 *
 * Spawn knows what runs; the store knows what should. A pod that runs and should is taken over; one
 * that should and does not is ended in the store; one that runs and should not is killed. Nothing is
 * ever started here: an old ticket is worth nothing. Whose rule has it started again gets a launch
 * of its own, from restarts.ts.
 */
import type { RecordBodies } from '../../audit/index.ts'
import { PodStream } from '../../native/pod-stream.ts'
import type { PodStatus } from '../../native/spawn-answers.ts'
import { type PodId, parsePodId, parseTenantId } from '../../policy/index.ts'
import {
  isFinal,
  type Pod,
  systemScope,
  type TenantScope,
  TenantsError,
} from '../../tenants/index.ts'
import { ApiError, problemOf } from '../errors.ts'
import { podView } from '../routes/views.ts'
import { stopMsOf } from './launch-facts.ts'
import { afterInterruption } from './next-start.ts'
import type { Pauses } from './pauses.ts'
import type { Ports } from './ports.ts'
import { LOST, type Watch } from './watch.ts'

export interface ReconcilePorts extends Ports {
  readonly watch: Watch
  readonly pauses: Pauses
}

const INTERRUPTED = {
  code: 'LAUNCH_FAILED',
  message: 'The agent ended while the pod was being launched; nothing of it runs. Launch it again.',
} as const

const orphaned = (pod: Pod, found: RecordBodies['launch.orphaned']['found'], pid: number | null) =>
  ({
    type: 'launch.orphaned',
    launch_id: pod.id,
    tenant: pod.tenant,
    intent_index: pod.recordIndex,
    found,
    action: found === 'running' ? 'adopted' : 'none',
    pid,
  }) as const

async function adopt(ports: ReconcilePorts, scope: TenantScope, pod: Pod): Promise<void> {
  const { stream } = await ports.spawn.adopt(pod.id)
  ports.watch.follow(scope, pod.id, new PodStream(stream))
}

/** A launch that had not come to spawn's answer when the agent ended. */
async function settleLaunching(
  ports: ReconcilePorts,
  scope: TenantScope,
  pod: Pod,
  status: PodStatus | undefined,
): Promise<void> {
  await ports.watch.note(orphaned(pod, status?.state ?? 'nothing', status?.pid ?? null))
  if (status === undefined || pod.state === 'requested') {
    const next = afterInterruption(pod, ports.now())
    await ports.tenants.movePod(scope, pod.id, 'failed', { problem: INTERRUPTED, ...next })
    await ports.files.remove(pod.id)
    return
  }
  await ports.tenants.movePod(scope, pod.id, 'running')
  await settleRunning(ports, scope, pod, status)
}

async function settleRunning(
  ports: ReconcilePorts,
  scope: TenantScope,
  pod: Pod,
  status: PodStatus | undefined,
): Promise<void> {
  if (status?.state !== 'running') {
    await ports.watch.finish(scope, pod.id, status?.exit ?? LOST)
    return
  }
  await adopt(ports, scope, pod)
  // It was told while it was being started, or spawn was away: nobody else remembers.
  if (pod.stopAsked) await ports.spawn.stop(pod.id, stopMsOf(pod))
}

/** Settles a pod as it was left, unless a round before this one did, and failed only after that. */
async function settle(
  ports: ReconcilePorts,
  scope: TenantScope,
  left: Pod,
  status: PodStatus | undefined,
): Promise<void> {
  const pod = await podOrNull(ports, scope, left.id)
  if (pod?.state !== left.state || ports.watch.attends(pod.id)) return
  if (pod.state === 'running') await settleRunning(ports, scope, pod, status)
  else await settleLaunching(ports, scope, pod, status)
}

/** What the caller of an interrupted request is told when it asks again with the same key. */
async function answerInterrupted(
  ports: ReconcilePorts,
  { unanswered }: Interrupted,
): Promise<void> {
  for (const { tenant, pod } of unanswered) {
    const scope = systemScope(tenant)
    // oxlint-disable-next-line no-await-in-loop -- a handful, after a crash
    const found = await podOrNull(ports, scope, pod)
    const ran = found !== null && (found.state === 'running' || found.state === 'exited')
    const problem = problemOf(new ApiError('LAUNCH_FAILED', INTERRUPTED.message))
    const answer = ran
      ? { status: 201, body: JSON.stringify(podView(found)) }
      : { status: problem.status, body: JSON.stringify(problem) }
    // oxlint-disable-next-line no-await-in-loop
    await ports.tenants.answerRequest(scope, pod, answer)
  }
}

async function podOrNull(
  ports: ReconcilePorts,
  scope: TenantScope,
  pod: PodId,
): Promise<Pod | null> {
  try {
    return await ports.tenants.getPod(scope, pod)
  } catch (error) {
    if (error instanceof TenantsError && error.code === 'POD_NOT_FOUND') return null
    throw error
  }
}

/**
 * What the agent before this one left unfinished. Taken before the first request is served, because
 * reconcile may have to wait for spawn, and must not mistake a new launch for an old one.
 */
export interface Interrupted {
  readonly pods: Awaited<ReturnType<Ports['tenants']['unfinishedPods']>>
  readonly unanswered: Awaited<ReturnType<Ports['tenants']['unansweredRequests']>>
}

export async function findInterrupted(ports: Pick<Ports, 'tenants'>): Promise<Interrupted> {
  const [pods, unanswered] = await Promise.all([
    ports.tenants.unfinishedPods(),
    ports.tenants.unansweredRequests(),
  ])
  return { pods, unanswered }
}

/** Settles what was interrupted. @throws SpawnError while spawn does not answer: then try again */
export async function reconcile(ports: ReconcilePorts, interrupted: Interrupted): Promise<void> {
  const statuses = new Map((await ports.spawn.list()).map((status) => [status.pod, status]))
  for (const { scope, pod } of interrupted.pods) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- spawn takes one request at a time
      await settle(ports, scope, pod, statuses.get(pod.id))
    } catch (error) {
      // One pod that cannot be settled must not keep the agent from the others.
      ports.log.error({ err: error, pod: pod.id }, 'a pod was not reconciled')
    }
  }
  await answerInterrupted(ports, interrupted)
  await sweep(ports)
}

/** Looks at everything spawn has. Pods that are followed take care of themselves. */
export async function sweep(ports: ReconcilePorts): Promise<void> {
  const statuses = await ports.pauses.look(() => ports.spawn.list())
  ports.watch.trim(statuses)
  for (const status of statuses) {
    const pod = parsePodId(status.pod)
    if (ports.watch.attends(pod)) continue
    const scope = systemScope(parseTenantId(status.tenant))
    // oxlint-disable-next-line no-await-in-loop -- spawn takes one request at a time
    const found = await podOrNull(ports, scope, pod)
    if (found === null || isFinal(found.state)) {
      // oxlint-disable-next-line no-await-in-loop
      await ports.watch.tidy(status, scope, found)
    } else if (found.state === 'running' && !ports.watch.attends(pod)) {
      // oxlint-disable-next-line no-await-in-loop
      await settleRunning(ports, scope, found, status)
    }
  }
}
