/**
 * Knows which pods run, and writes down how each ended: on record, in the store, and the quota given
 * back. The word of spawn counts, which reaped the process; a pod stream that closes only says when
 * to ask.
 *
 * Nothing here stops when the log cannot be written: a pod that ended has ended. Spawn keeps the
 * status until it is told to forget, and it is told so only after the exit is on record.
 */
import type { FastifyBaseLogger } from 'fastify'
import type { Actor, RecordBody } from '../../audit/index.ts'
import { PodStream } from '../../native/pod-stream.ts'
import type { PodExit, PodStatus } from '../../native/spawn-answers.ts'
import { SpawnError } from '../../native/spawn-client.ts'
import type { PodId } from '../../policy/index.ts'
import type { Pod, TenantScope } from '../../tenants/index.ts'
import { isFinal } from '../../tenants/index.ts'
import { HealthBook } from './health-book.ts'
import { unhealthyEnd } from './health-facts.ts'
import { afterExit } from './next-start.ts'
import type { Ports } from './ports.ts'

/** Between two looks at a pod whose stream has closed; spawn reaps within milliseconds. */
const LOOK_MS = 50
const LOOKS_MAX = 40

interface Followed {
  readonly scope: TenantScope
  stream: PodStream | null
  readonly ended: AbortController
  /** Its end is being written down just now. */
  settling: boolean
}

export interface StopNote {
  readonly scope: TenantScope
  /** As the store had it when it was told to stop. */
  readonly pod: Pod
  readonly actor: Actor
  /** From asking to killing. */
  readonly timeoutMs: number
}

export const stopRequested = ({ scope, pod, actor, timeoutMs }: StopNote): RecordBody => ({
  type: 'launch.stop_requested',
  launch_id: pod.id,
  tenant: scope.tenant,
  actor,
  timeout_ms: timeoutMs,
})

/** What is said of a pod that spawn does not know: it or the host was started anew, and nothing of the pod was left. */
export const LOST: PodExit = {
  how: 'failure',
  value: 0,
  guest_reported: false,
  cause: 'SPAWN_LOST',
  text: 'casemate-spawn ended and took its knowledge of the pod with it',
}

const wait = (ms: number): Promise<void> =>
  new Promise((resolve) => {
    setTimeout(resolve, ms).unref()
  })

const reasonOf = (
  exit: PodExit,
  { asked, ill }: { readonly asked: boolean; readonly ill: boolean },
): 'exit' | 'stop' | 'unhealthy' | 'failure' => {
  if (asked) return 'stop'
  if (ill) return 'unhealthy'
  return exit.how === 'vmm' || exit.how === 'failure' ? 'failure' : 'exit'
}

export class Watch {
  readonly health: HealthBook = new HealthBook()
  readonly #ports: Pick<Ports, 'tenants' | 'audit' | 'spawn' | 'files' | 'now'>
  readonly #log: FastifyBaseLogger
  readonly #followed = new Map<PodId, Followed>()
  /** Pods whose end is on record, as long as spawn may still list them. */
  readonly #recorded = new Set<string>()
  /**
   * Running pods that were told to stop, so that their exit was asked for; whether that is on record.
   * The store knows the latter as well, for the agent after this one.
   */
  readonly #stopping = new Map<string, boolean>()
  /** Pods that were told to stop while the store took no note of it: no rule starts them again. */
  readonly #told = new Set<PodId>()
  /** Pods that should not run, whose killing is on record, as long as spawn may still list them. */
  readonly #killed = new Set<string>()
  #closed = false

  constructor(
    ports: Pick<Ports, 'tenants' | 'audit' | 'spawn' | 'files' | 'now'>,
    log: FastifyBaseLogger,
  ) {
    this.#ports = ports
    this.#log = log
  }

  /** A record of what has happened already: when it cannot be written, the log of the agent has it. */
  async note(body: RecordBody): Promise<boolean> {
    try {
      await this.#ports.audit.appendReserve(body)
      return true
    } catch (error) {
      this.#log.error({ err: error, record: body }, 'not on record')
      return false
    }
  }

  /** Takes a running pod over; `stream` is the watch's from here on. */
  follow(scope: TenantScope, pod: PodId, stream: PodStream): void {
    const known = this.#followed.get(pod)
    if (known !== undefined) {
      known.stream = stream
      this.#attach(pod, known, stream)
      return
    }
    const followed: Followed = {
      scope,
      stream,
      ended: new AbortController(),
      settling: false,
    }
    this.#followed.set(pod, followed)
    this.#attach(pod, followed, stream)
  }

  #attach(pod: PodId, followed: Followed, stream: PodStream): void {
    const over = (failure?: Error): void => {
      if (followed.stream !== stream) return
      followed.stream = null
      if (failure !== undefined) this.#log.warn({ err: failure, pod }, 'pod stream ended')
      if (!this.#closed) void this.#settle(pod, followed)
    }
    stream.on('health', (health) => this.health.hear(followed.scope, pod, health))
    stream.on('close', over)
    if (stream.closed) over() // it may have ended before anybody looked
  }

  /** Aborted when the pod has ended and its end is in the store. */
  ended(pod: PodId): AbortSignal {
    return this.#followed.get(pod)?.ended.signal ?? AbortSignal.abort()
  }

  stream(pod: PodId): PodStream | null {
    return this.#followed.get(pod)?.stream ?? null
  }

  /** Puts it on record that a pod was told to stop: once, however often and by how many. */
  async noteStop(stopNote: StopNote): Promise<void> {
    const { scope, pod } = stopNote
    if (pod.stopRecorded || this.#stopping.get(pod.id) === true) return
    this.#stopping.set(pod.id, true)
    const noted = await this.note(stopRequested(stopNote))
    if (noted) await this.#rememberStop(scope, pod.id)
    // The next to ask finds out whether it can be recorded then; unless the pod has ended meanwhile.
    else if (this.#stopping.has(pod.id)) this.#stopping.set(pod.id, false)
  }

  /** For a stop that the store does not take: it depends on no disk. @param origin the pod's id */
  noteTold(origin: PodId): void {
    this.#told.add(origin)
  }

  /** After the record: who dies in between leaves two records of one stop, never a stop without one. */
  async #rememberStop(scope: TenantScope, pod: PodId): Promise<void> {
    try {
      await this.#ports.tenants.notePod(scope, pod, { stopRecorded: true })
    } catch (error) {
      // It has just ended, or the store takes nothing; a stop depends on no disk.
      this.#log.warn({ err: error, pod }, 'a stop on record was not noted in the store')
    }
  }

  /** Whether the pod takes care of itself: its stream is open, or its end is being written down. */
  attends(pod: PodId): boolean {
    const followed = this.#followed.get(pod)
    return followed !== undefined && (followed.stream !== null || followed.settling)
  }

  async #settle(pod: PodId, followed: Followed): Promise<void> {
    followed.settling = true
    try {
      const exit = await this.#exitOf(pod)
      if (exit === null) await this.#adopt(pod, followed)
      else await this.finish(followed.scope, pod, exit)
    } catch (error) {
      // The sweep looks again: neither the pod nor its quota is forgotten.
      this.#log.error({ err: error, pod }, 'the end of a pod could not be written down')
    } finally {
      followed.settling = false
    }
  }

  /** How the pod ended; null while it runs on. */
  async #exitOf(pod: PodId): Promise<PodExit | null> {
    for (let look = 0; look < LOOKS_MAX; look += 1) {
      // oxlint-disable-next-line no-await-in-loop -- asking again is the point
      const status = (await this.#ports.spawn.list()).find((one) => one.pod === pod)
      if (status === undefined) return LOST
      if (status.exit !== null) return status.exit
      // oxlint-disable-next-line no-await-in-loop
      await wait(LOOK_MS)
    }
    return null
  }

  async #adopt(pod: PodId, followed: Followed): Promise<void> {
    const { stream } = await this.#ports.spawn.adopt(pod)
    followed.stream = new PodStream(stream)
    this.#attach(pod, followed, followed.stream)
  }

  /** Writes an end down, once: record, store, quota, scratch; then spawn may forget it. */
  async finish(scope: TenantScope, pod: PodId, exit: PodExit): Promise<void> {
    const before = await this.#ports.tenants.getPod(scope, pod)
    if (isFinal(before.state)) return
    // The store may have refused last time: the record is there then.
    const known = this.#recorded.has(pod)
    const recorded =
      known ||
      (await this.note({
        type: 'launch.exited',
        launch_id: pod,
        tenant: scope.tenant,
        exit,
        reason: reasonOf(exit, {
          asked: before.stopRecorded || this.#stopping.has(pod),
          ill: unhealthyEnd(before) !== null,
        }),
        duration_us: before.startedMs === null ? null : (Date.now() - before.startedMs) * 1000,
      }))
    if (recorded) this.#recorded.add(pod)
    const nowMs = this.#ports.now()
    const wellMs = this.health.wellMs(pod, nowMs)
    const next = this.#told.has(before.origin) ? {} : afterExit(before, exit, { nowMs, wellMs })
    await this.#ports.tenants.movePod(scope, pod, 'exited', { exit: { ...exit }, ...next })
    this.#told.delete(before.origin)
    this.#followed.get(pod)?.ended.abort()
    this.#followed.delete(pod)
    this.health.forget(pod)
    this.#stopping.delete(pod)
    if (recorded && exit.cause !== LOST.cause) await this.#forget(pod)
  }

  /** Somebody may have been quicker; forgotten is forgotten. */
  async #forget(pod: string): Promise<void> {
    try {
      await this.#ports.spawn.forget(pod)
    } catch (error) {
      if (!(error instanceof SpawnError) || error.code !== 'POD_UNKNOWN') throw error
    }
  }

  /** What spawn lists no more needs no memory here. */
  trim(listed: readonly PodStatus[]): void {
    const known = new Set(listed.map((status) => status.pod))
    for (const pods of [this.#recorded, this.#killed, this.#stopping]) {
      for (const pod of pods.keys()) if (!known.has(pod)) pods.delete(pod)
    }
  }

  /** A pod that spawn has, and the store does not, or says has ended: `pod` is what the store says. */
  async tidy(status: PodStatus, scope: TenantScope, pod: Pod | null): Promise<void> {
    if (status.state === 'running') {
      await this.#ports.spawn.kill(status.pod)
      // Spawn lists it until it is reaped, and the next sweep may be sooner.
      if (this.#killed.has(status.pod)) return
      const noted = await this.note({
        type: 'launch.orphaned',
        launch_id: status.pod,
        tenant: scope.tenant,
        intent_index: pod?.recordIndex ?? null,
        found: 'running',
        action: 'killed',
        pid: status.pid,
      })
      if (noted) this.#killed.add(status.pod)
      return
    }
    // Spawn is told to forget right after the record: an end that it still has is on no record yet,
    // unless it was recorded since spawn was asked.
    const recorded =
      this.#recorded.has(status.pod) ||
      (await this.note({
        type: 'launch.exited',
        launch_id: status.pod,
        tenant: scope.tenant,
        exit: status.exit ?? LOST,
        reason: 'unknown',
        duration_us: null,
      }))
    if (recorded) await this.#forget(status.pod)
  }

  /** Lets go of all pods; they run on. */
  close(): void {
    this.#closed = true
    for (const { stream } of this.#followed.values()) stream?.close()
  }
}
