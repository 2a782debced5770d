/**
 * Drains the host: nothing is launched any more, and what runs is told to end, at the latest by a deadline. It is in the
 * store and on record before anything is stopped, so an agent that is restarted goes on with it; it holds until an
 * operator ends it. Pods whose rule has them started again wait for that end, as they do for a host that is down.
 */
import { setTimeout as delay } from 'node:timers/promises'
import { SpawnError } from '../../native/spawn-client.ts'
import type {
  DrainCounts,
  HostDrain,
  OperatorScope,
  Pod,
  TenantScope,
} from '../../tenants/index.ts'
import { notFound } from '../errors.ts'
import { Turns } from '../turns.ts'
import { stopMsOf } from './launch-facts.ts'
import type { Launching } from './launching.ts'
import type { Ports } from './ports.ts'
import { AGENT, type actorOf } from './record-parts.ts'
import type { Watch } from './watch.ts'

const LOOK_MS = 500
/** Asked in one look: spawn takes 128 connections. */
const AT_ONCE_MAX = 64
/** After the deadline, for spawn to reap what it killed and for the ends to be on record. */
const GRACE_MS = 10_000

export const DRAIN_MS_DEFAULT = 600_000
export const DRAIN_MS_MAX = 86_400_000

export type DrainPorts = Pick<Ports, 'tenants' | 'audit' | 'spawn' | 'now' | 'log'> & {
  readonly watch: Watch
  readonly launching: Launching
}

interface Running {
  readonly scope: TenantScope
  readonly pod: Pod
}

export interface DrainStatus extends HostDrain {
  readonly counts: DrainCounts
}

export class Drain {
  readonly #ports: DrainPorts
  #going: Promise<void> | null = null
  /** Another look is wanted, whatever the one under way finds. */
  #again = false
  /** Beginning and ending, one after the other. */
  readonly #turns = new Turns()
  #stopped = false
  /** Launches that were asked to end by this agent. */
  readonly #asked = new Set<string>()

  constructor(ports: DrainPorts) {
    this.#ports = ports
  }

  /** Goes on with the drain that the agent before this one was at. Before anything is served. */
  async start(): Promise<void> {
    const drain = await this.#ports.tenants.drains.get()
    this.#ports.launching.hold(drain !== null)
    if (drain !== null) this.#go()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#going
  }

  /** null: the host is not drained. */
  async status(_operator: OperatorScope): Promise<DrainStatus | null> {
    const { drains } = this.#ports.tenants
    const drain = await drains.get()
    return drain && { ...drain, counts: await drains.counts(drain) }
  }

  /** Begins it, or sets another deadline. @throws AuditUnavailable: then nothing is drained */
  async begin(
    operator: OperatorScope,
    actor: ReturnType<typeof actorOf>,
    deadlineMs: number,
  ): Promise<DrainStatus> {
    const { tenants, audit, launching } = this.#ports
    return await this.#turns.run('', async () => {
      const drain = await tenants.drains.begin(operator, deadlineMs, async ({ untilMs }) => {
        const until = new Date(untilMs).toISOString()
        await audit.append({ type: 'host.drain_started', until, actor })
      })
      launching.hold(true)
      this.#asked.clear()
      this.#go()
      return { ...drain, counts: await tenants.drains.counts(drain) }
    })
  }

  /** Whatever the log can take: it gives nobody anything. @throws ApiError NOT_FOUND */
  async end(operator: OperatorScope, actor: ReturnType<typeof actorOf>): Promise<void> {
    const { tenants, watch, launching } = this.#ports
    await this.#turns.run('', async () => {
      if (!(await tenants.drains.end(operator))) throw notFound()
      launching.hold(false)
      await watch.note({ type: 'host.drain_ended', actor })
    })
  }

  #go(): void {
    this.#again = true
    this.#going ??= this.#run().finally(() => {
      this.#going = null
    })
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      this.#again = false
      try {
        // oxlint-disable-next-line no-await-in-loop -- one look after the other
        if ((await this.#look()) && !this.#again) return
      } catch (error) {
        this.#ports.log.error({ err: error }, 'the host could not be drained further just now')
      }
      // oxlint-disable-next-line no-await-in-loop
      await delay(LOOK_MS)
    }
  }

  /** Whether there is nothing more to do. */
  async #look(): Promise<boolean> {
    const { tenants, now } = this.#ports
    const drain = await tenants.drains.get()
    if (drain === null || drain.reportedMs !== null) return true
    const left = await tenants.unfinishedPods()
    const late = now() >= drain.untilMs
    const running = left.filter(({ pod }) => pod.state === 'running')
    if (late) await Promise.all(running.map(({ pod }) => this.#kill(pod)))
    else await this.#ask(running, drain)
    if (left.length > 0 && now() < drain.untilMs + GRACE_MS) return false
    await this.#report(drain)
    return true
  }

  async #ask(running: readonly Running[], { untilMs }: HostDrain): Promise<void> {
    const fresh = running.filter(({ pod }) => !this.#asked.has(pod.id)).slice(0, AT_ONCE_MAX)
    await Promise.all(
      fresh.map(async ({ scope, pod }) => {
        const timeoutMs = Math.max(Math.min(stopMsOf(pod), untilMs - this.#ports.now()), 0)
        await this.#ports.watch.noteStop({ scope, pod, actor: AGENT, timeoutMs })
        if (await this.#told(pod, () => this.#ports.spawn.stop(pod.id, timeoutMs))) {
          this.#asked.add(pod.id)
        }
      }),
    )
  }

  async #kill(pod: Pod): Promise<void> {
    await this.#told(pod, () => this.#ports.spawn.kill(pod.id))
  }

  /** Whether spawn took it; a pod that has just ended needs nothing, and spawn that is away is asked again. */
  async #told(pod: Pod, ask: () => Promise<void>): Promise<boolean> {
    try {
      await ask()
      return true
    } catch (error) {
      if (!(error instanceof SpawnError)) throw error
      this.#ports.log.warn({ err: error, pod: pod.id }, 'a pod was not told to end')
      return false
    }
  }

  async #report(drain: HostDrain): Promise<void> {
    const { tenants, watch } = this.#ports
    const { ended, killed, left } = await tenants.drains.counts(drain)
    await watch.note({ type: 'host.drained', ended, killed, left })
    await tenants.drains.reported(drain)
  }
}
