/** Waits for the end of a pod. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { PodId } from '../../policy/index.ts'
import { isOver, type Pod, type TenantScope } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import type { Ports } from './ports.ts'
import type { Watch } from './watch.ts'

/** How often a pod that is being launched, or waits to be started again, is looked at. */
const LOOK_MS = 200

export interface WaitCall {
  readonly scope: TenantScope
  readonly pod: PodId
  readonly timeoutMs: number
  /** The caller has gone. */
  readonly gone: AbortSignal
}

/** Waits until no start of the pod is left to come. @throws ApiError WAIT_TIMEOUT */
export async function waitForEnd(
  ports: Pick<Ports, 'tenants'> & { readonly watch: Watch },
  call: WaitCall,
): Promise<Pod> {
  const late = AbortSignal.timeout(call.timeoutMs)
  let start = call.pod
  for (;;) {
    // Taken before the store is read: an end in between is then seen at once.
    const ended = ports.watch.ended(start)
    // oxlint-disable-next-line no-await-in-loop -- waiting is the point
    const pod = await ports.tenants.newestStart(call.scope, call.pod)
    if (isOver(pod)) return pod
    if (pod.id !== start && ports.watch.attends(pod.id)) {
      start = pod.id
      continue
    }
    if (late.aborted || call.gone.aborted) {
      const sentence = `Pod ${pod.origin} is still ${pod.state} after ${call.timeoutMs} ms.`
      throw new ApiError('WAIT_TIMEOUT', sentence, { pod: pod.origin, state: pod.state })
    }
    const signal = AbortSignal.any([late, call.gone, ...(ended.aborted ? [] : [ended])])
    // oxlint-disable-next-line no-await-in-loop
    await sleep(ended.aborted ? LOOK_MS : call.timeoutMs, undefined, { signal }).catch(
      () => undefined,
    )
  }
}
