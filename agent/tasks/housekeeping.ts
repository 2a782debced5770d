/**
 * What the agent does without being asked: settle what the one before left, look every few seconds
 * at what spawn has, build templates, and throw away files of pods that are gone.
 */
import { gc } from './gc.ts'
import type { Ports } from './ports.ts'
import { prune } from './prune.ts'
import { type Interrupted, type ReconcilePorts, reconcile, sweep } from './reconcile.ts'
import { AGENT } from './record-parts.ts'
import type { Templates } from './templates.ts'

const SWEEP_MS = 5000
const GC_MS = 3_600_000

export class Housekeeping {
  readonly #ports: ReconcilePorts
  readonly #templates: Templates
  #interrupted: Interrupted | null
  #timer: NodeJS.Timeout | null = null
  #busy = false
  #collector: NodeJS.Timeout | null = null

  constructor(ports: ReconcilePorts & { readonly templates: Templates }, interrupted: Interrupted) {
    this.#ports = ports
    this.#templates = ports.templates
    this.#interrupted = interrupted
  }

  async start(): Promise<void> {
    await this.#round()
    this.#timer = setInterval(() => void this.#round(), SWEEP_MS)
    this.#collector = setInterval(() => void this.#collect(), GC_MS)
    void this.#once()
    void this.#collect()
  }

  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
    if (this.#collector !== null) clearInterval(this.#collector)
  }

  /** One round at a time; spawn may be slow, or away, and then the next round tries again. */
  async #round(): Promise<void> {
    if (this.#busy) return
    this.#busy = true
    try {
      if (this.#interrupted === null) await sweep(this.#ports)
      else await reconcile(this.#ports, this.#interrupted)
      this.#interrupted = null
    } catch (error) {
      this.#ports.log.warn({ err: error }, 'what runs could not be compared with what should')
    } finally {
      await this.#tidy()
      this.#busy = false
    }
  }

  /** Whether or not spawn answers. */
  async #tidy(): Promise<void> {
    try {
      await prune(this.#ports)
    } catch (error) {
      this.#ports.log.warn({ err: error }, 'pods that ended long ago were not removed')
    }
  }

  /** Beside the rounds: looking at all images may take longer than one. */
  async #collect(): Promise<void> {
    try {
      const { ages } = this.#ports
      await gc(this.#ports, { ages, dryRun: false, actor: AGENT })
    } catch (error) {
      this.#ports.log.warn({ err: error }, 'old pods and unused images were not removed')
    }
  }

  async #once(): Promise<void> {
    try {
      await sayStarted(this.#ports)
    } catch (error) {
      this.#ports.log.warn({ err: error }, 'the start of the agent is not on record')
    }
    this.#templates.warm()
  }
}

async function sayStarted(ports: Ports): Promise<void> {
  const host = await ports.spawn.describe()
  await ports.audit.append({
    type: 'agent.start',
    pid: process.pid,
    kvm: host.kvm,
    allow_software_kvm: host.allow_software_kvm,
    policy: ports.policies.digest,
  })
}
