/**
 * Takes away what nobody uses any more: pods that ended long ago, with their logs, and images that no launch has used for
 * long. Records stay. Volumes are never taken: they are what a tenant means to keep.
 */
import type { Actor } from '../../audit/index.ts'
import { type EndedPod, TenantsError } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import type { UnusedImages } from '../images/index.ts'
import type { Ports } from './ports.ts'
import { remove } from './remove.ts'
import type { Watch } from './watch.ts'

/** Pods of one run; the next one does the rest. */
const PODS_MAX = 1000

/** Ages from which on things go, ms; null: they stay, however old. */
export interface Ages {
  readonly podsMs: number | null
  readonly imagesMs: number | null
}

export interface GcCall {
  readonly ages: Ages
  /** Says what would go, and takes nothing. */
  readonly dryRun: boolean
  readonly actor: Actor
}

export interface GcReport {
  readonly pods: readonly EndedPod[]
  readonly images: readonly UnusedImages[]
}

export type GcPorts = Pick<Ports, 'tenants' | 'files' | 'images' | 'now'> & {
  readonly watch: Watch
}

/** Removes a pod that somebody asked to have removed. @throws as remove */
export async function removeAsked(
  ports: GcPorts,
  { scope, pod }: Pick<EndedPod, 'scope' | 'pod'>,
  actor: Actor,
): Promise<void> {
  await remove(ports, scope, pod)
  await noteRemoved(ports, { launch: pod, tenant: scope.tenant }, { actor, reason: 'asked' })
}

/** Puts the removal of a pod on record, after it: what is gone is gone. */
async function noteRemoved(
  { watch }: { readonly watch: Watch },
  pod: { readonly launch: string; readonly tenant: string },
  { actor, reason }: { readonly actor: Actor; readonly reason: 'asked' | 'age' },
): Promise<void> {
  const { launch, tenant } = pod
  await watch.note({ type: 'launch.removed', launch_id: launch, tenant, actor, reason })
}

/** Whether it was there to be removed: somebody may have been quicker. */
async function removed(ports: GcPorts, { scope, pod }: EndedPod): Promise<boolean> {
  try {
    await remove(ports, scope, pod)
    return true
  } catch (error) {
    const passed =
      error instanceof TenantsError ||
      (error instanceof ApiError && error.code === 'POD_STATE_CONFLICT')
    if (passed) return false
    throw error
  }
}

async function oldPods(ports: GcPorts, call: GcCall): Promise<readonly EndedPod[]> {
  const { podsMs } = call.ages
  if (podsMs === null) return []
  const old = await ports.tenants.oldPods(ports.now() - podsMs, PODS_MAX)
  if (call.dryRun) return old
  const gone: EndedPod[] = []
  for (const one of old) {
    // oxlint-disable-next-line no-await-in-loop -- the disk is not to be busy with this
    if (!(await removed(ports, one))) continue
    const pod = { launch: one.pod, tenant: one.scope.tenant }
    // oxlint-disable-next-line no-await-in-loop
    await noteRemoved(ports, pod, { actor: call.actor, reason: 'age' })
    gone.push(one)
  }
  return gone
}

export async function gc(ports: GcPorts, call: GcCall): Promise<GcReport> {
  const pods = await oldPods(ports, call)
  const { imagesMs } = call.ages
  const { dryRun } = call
  const images = imagesMs === null ? [] : await ports.images.collect(imagesMs, dryRun)
  return { pods, images }
}
