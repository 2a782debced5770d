/** Waits for the end of a pod. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { PodId } from '../../policy/index.ts'
import { isFinal, type Pod, type TenantScope } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import type { Ports } from './ports.ts'
import type { Watch } from './watch.ts'

/** How often a pod that is still being launched is looked at. */
const LOOK_MS = 200

export interface WaitCall {
  readonly scope: TenantScope
  readonly pod: PodId
  readonly timeoutMs: number
  /** The caller has gone. */
  readonly gone: AbortSignal
}

/** @throws ApiError WAIT_TIMEOUT */
export async function waitForEnd(
  ports: Pick<Ports, 'tenants'> & { readonly watch: Watch },
  call: WaitCall,
): Promise<Pod> {
  const late = AbortSignal.timeout(call.timeoutMs)
  for (;;) {
    // Taken before the store is read: an end in between is then seen at once.
    const ended = ports.watch.ended(call.pod)
    // oxlint-disable-next-line no-await-in-loop -- waiting is the point
    const pod = await ports.tenants.getPod(call.scope, call.pod)
    if (isFinal(pod.state)) return pod
    if (late.aborted || call.gone.aborted) {
      const sentence = `Pod ${pod.id} is still ${pod.state} after ${call.timeoutMs} ms.`
      throw new ApiError('WAIT_TIMEOUT', sentence, { pod: pod.id, state: pod.state })
    }
    const signal = AbortSignal.any([late, call.gone, ...(ended.aborted ? [] : [ended])])
    // oxlint-disable-next-line no-await-in-loop
    await sleep(ended.aborted ? LOOK_MS : call.timeoutMs, undefined, { signal }).catch(
      () => undefined,
    )
  }
}
