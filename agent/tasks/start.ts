/**
 * The last step of a launch: spawn checks the ticket, spends it and starts the pod.
 *
 * What goes wrong on the way to spawn says nothing about what spawn did, so spawn is asked. A pod
 * that starts after all, later, is one that the store says has failed: the sweep of watch.ts kills it.
 */
import { type FileHandle, open } from 'node:fs/promises'
import { setTimeout as delay } from 'node:timers/promises'
import type { Appended } from '../../audit/index.ts'
import { PodStream } from '../../native/pod-stream.ts'
import { type SpawnClient, SpawnError } from '../../native/spawn-client.ts'
import type { Spec } from '../../native/spec.ts'
import type { Plan } from '../../policy/index.ts'
import type { Pod, TenantScope } from '../../tenants/index.ts'
import type { Rootfs } from '../images/index.ts'
import type { LaunchPorts } from './launch.ts'
import type { SealedFiles } from './launch-files.ts'

/** 10 s together: less than a ticket is good for. */
const BUSY_TRIES_MAX = 100
const BUSY_MS = 100

export interface StartCall {
  readonly scope: TenantScope
  readonly plan: Plan
  readonly spec: Spec
  readonly intent: Appended
  readonly ticket: string
  readonly rootfs: Rootfs
  readonly log: FileHandle
  /** Content of its app's files; null: none. */
  readonly sealed: SealedFiles | null
}

interface Started {
  readonly pid: number
  readonly stream: PodStream
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString('utf8')

/** Codes that do not say whether spawn got the request. */
const unclear = new Set(['SPAWN_TIMEOUT', 'SPAWN_PROTOCOL', 'SPAWN_UNREACHABLE', 'SPAWN_GONE'])

/** Whether spawn itself said no: then nothing was started. */
export const isRefusedBySpawn = (error: unknown): boolean =>
  error instanceof SpawnError && !unclear.has(error.code)

async function launched(ports: LaunchPorts, call: StartCall): Promise<Started> {
  const { plan, spec, intent, ticket, log } = call
  const image = await open(call.rootfs.path, 'r')
  try {
    const papers = { ticket, record: text(intent.bytes), spec: text(spec.bytes) }
    const files = call.sealed === null ? {} : { files: call.sealed.fd }
    const launch = { ...papers, image: image.fd, log: log.fd, ...files }
    return await onceFree(() => ports.launchers[plan.level].launch(launch))
  } catch (error) {
    const found = await findAfterAll(ports.spawn, plan.pod, error)
    if (found === null) throw error
    return found
  } finally {
    await image.close()
  }
}

/**
 * A volume is free when the kernel has let go of it, which for a pod that has just ended may take it a moment: until then
 * spawn refuses, with the ticket unspent.
 */
async function onceFree<T>(launch: () => Promise<T>): Promise<T> {
  for (let tries = 1; ; tries += 1) {
    try {
      // oxlint-disable-next-line no-await-in-loop -- trying again is the point
      return await launch()
    } catch (error) {
      const isBusy = error instanceof SpawnError && error.code === 'VOLUME_BUSY'
      if (!isBusy || tries === BUSY_TRIES_MAX) throw error
      // oxlint-disable-next-line no-await-in-loop -- likewise
      await delay(BUSY_MS)
    }
  }
}

/** The pod, if spawn started it although its answer did not arrive. */
async function findAfterAll(
  spawn: SpawnClient,
  pod: string,
  error: unknown,
): Promise<Started | null> {
  if (!(error instanceof SpawnError) || !unclear.has(error.code)) return null
  try {
    const pods = await spawn.list()
    if (!pods.some((status) => status.pod === pod && status.state === 'running')) return null
    const { pid, stream } = await spawn.adopt(pod)
    return { pid, stream: new PodStream(stream) }
  } catch {
    return null // the first error is the one to tell
  }
}

/** @throws SpawnError */
export async function start(ports: LaunchPorts, call: StartCall): Promise<Pod> {
  const { scope, plan, spec, intent } = call
  const began = process.hrtime.bigint()
  const { pid, stream } = await launched(ports, call)
  const startUs = Number((process.hrtime.bigint() - began) / 1000n)
  // Should the store not take it, the pod ends as failed there and the sweep kills it.
  const pod = await ports.tenants.movePod(scope, plan.pod, 'running')
  ports.watch.follow(scope, plan.pod, stream)
  await ports.watch.note({
    type: 'launch.started',
    launch_id: plan.pod,
    tenant: plan.tenant,
    intent_index: intent.index,
    pid,
    spec: spec.digest,
    start_us: startUs,
  })
  return pod
}
