/** Waits until a pod runs, is healthy, or has ended. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type PodId, Refusal } from '../../policy/index.ts'
import { isOver, type Pod, type TenantScope } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import { isChecked } from './health-facts.ts'
import type { Ports } from './ports.ts'
import type { Watch } from './watch.ts'

/** How often a pod that is being launched, or waits to be started again, is looked at. */
const LOOK_MS = 200

export const WAIT_STATES = ['exited', 'running', 'healthy'] as const
export type WaitState = (typeof WAIT_STATES)[number]

export interface WaitCall {
  readonly scope: TenantScope
  readonly pod: PodId
  /** What for; exited is: no start of it is left to come. */
  readonly until: WaitState
  readonly timeoutMs: number
  /** The caller has gone. */
  readonly gone: AbortSignal
}

type WaitPorts = Pick<Ports, 'tenants'> & { readonly watch: Watch }

const SENTENCES: Readonly<Record<Exclude<WaitState, 'exited'>, string>> = {
  running: 'ran',
  healthy: 'was healthy',
}

/** @throws ApiError WAIT_ENDED, Refusal HEALTHCHECK_MISSING: what will never be */
function isThere({ watch }: WaitPorts, pod: Pod, until: WaitState): boolean {
  if (until === 'exited') return isOver(pod)
  if (until === 'running' && pod.state === 'running') return true
  if (isOver(pod)) {
    const sentence = `Pod ${pod.origin} is ${pod.state} and ended before it ${SENTENCES[until]}.`
    throw new ApiError('WAIT_ENDED', sentence, { pod: pod.origin, state: pod.state })
  }
  if (until === 'running') return false
  if (isChecked(pod) === false && pod.state === 'running') {
    const sentence = `Pod ${pod.origin} has no health check, so nobody will know. Wait for running, or launch it with one.`
    throw new Refusal('HEALTHCHECK_MISSING', sentence, { pod: pod.origin })
  }
  return pod.state === 'running' && watch.health.of(pod.id)?.state === 'healthy'
}

/** What happens next to the start; aborted already where nobody would say. */
function nextOf({ watch }: WaitPorts, pod: Pod, until: WaitState): AbortSignal {
  if (!watch.attends(pod.id)) return AbortSignal.abort()
  return until === 'healthy' ? watch.health.changed(pod.id) : watch.ended(pod.id)
}

/** @throws ApiError WAIT_TIMEOUT, WAIT_ENDED; Refusal HEALTHCHECK_MISSING */
export async function waitFor(ports: WaitPorts, call: WaitCall): Promise<Pod> {
  const { until, timeoutMs } = call
  const late = AbortSignal.timeout(timeoutMs)
  let newest = await ports.tenants.newestStart(call.scope, call.pod)
  for (;;) {
    // Taken before the store is read: what happens in between is then seen at once.
    const next = nextOf(ports, newest, until)
    // oxlint-disable-next-line no-await-in-loop -- waiting is the point
    const pod = await ports.tenants.newestStart(call.scope, call.pod)
    if (isThere(ports, pod, until)) return pod
    const isAnother = pod.id !== newest.id || pod.state !== newest.state
    newest = pod
    if (isAnother) continue
    if (late.aborted || call.gone.aborted) {
      const sentence = `Pod ${pod.origin} is still ${pod.state} after ${timeoutMs} ms.`
      throw new ApiError('WAIT_TIMEOUT', sentence, { pod: pod.origin, state: pod.state })
    }
    const signal = AbortSignal.any([late, call.gone, ...(next.aborted ? [] : [next])])
    // oxlint-disable-next-line no-await-in-loop
    await sleep(next.aborted ? LOOK_MS : timeoutMs, undefined, { signal }).catch(() => undefined)
  }
}
