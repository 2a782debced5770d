/**
 * Puts refusals on record, and floods of them as one: the first of a kind from a caller at once,
 * what follows within a minute as a single record with a count. So nobody fills the log for others,
 * and no refusal is missing from it.
 */
import type { FastifyBaseLogger } from 'fastify'
import type {
  Actor,
  ImageFacts,
  PolicyFacts,
  RecordBodies,
  RestartFacts,
} from '../../audit/index.ts'
import type { IsolationLevel } from '../../policy/index.ts'
import type { AuditPort } from '../audit-gate.ts'

const WINDOW_MS = 60_000
/** Windows open at once. Beyond it the oldest is closed early: its count is recorded, not lost. */
const WINDOWS_MAX = 4096

export interface RefusedLaunch {
  readonly launchId: string
  readonly tenant: string
  readonly actor: Actor
  readonly image: ImageFacts | null
  readonly requested: IsolationLevel | null
  readonly policy: PolicyFacts | null
  readonly refusal: RecordBodies['launch.refused']['refusal']
  /** null: somebody asked for it. */
  readonly restart: RestartFacts | null
}

interface Window {
  /** The last one folded, which stands for all; null while there is nothing to fold. */
  latest: RefusedLaunch | null
  count: number
  first: string
  last: string
  readonly timer: NodeJS.Timeout
}

const bodyOf = (refused: RefusedLaunch, folded: RecordBodies['launch.refused']['folded']) =>
  ({
    type: 'launch.refused',
    launch_id: folded.count === 1 ? refused.launchId : null,
    tenant: refused.tenant,
    actor: refused.actor,
    image: refused.image,
    level_requested: refused.requested,
    policy: refused.policy,
    refusal: refused.refusal,
    folded,
    ...(refused.restart === null || folded.count > 1 ? {} : { restart: refused.restart }),
  }) as const

export class Refusals {
  readonly #audit: AuditPort
  readonly #log: FastifyBaseLogger
  readonly #windows = new Map<string, Window>()

  constructor(audit: AuditPort, log: FastifyBaseLogger) {
    this.#audit = audit
    this.#log = log
  }

  /** Resolves with true when the refusal has a record of its own, false when it was folded. */
  async record(refused: RefusedLaunch): Promise<boolean> {
    const key = JSON.stringify([refused.tenant, refused.actor.sub, refused.refusal.code])
    const now = new Date().toISOString()
    const open = this.#windows.get(key)
    if (open !== undefined) {
      if (open.count === 0) open.first = now
      open.count += 1
      open.last = now
      open.latest = refused
      return false
    }
    this.#open(key, now)
    await this.#append(refused, { count: 1, first: now, last: now })
    return true
  }

  /** Never folded: for what cannot come in floods. */
  async recordAlone(refused: RefusedLaunch): Promise<void> {
    const now = new Date().toISOString()
    await this.#append(refused, { count: 1, first: now, last: now })
  }

  #open(key: string, now: string): void {
    const oldest = this.#windows.keys().next().value
    if (this.#windows.size >= WINDOWS_MAX && oldest !== undefined) void this.#close(oldest)
    const timer = setTimeout(() => void this.#close(key), WINDOW_MS)
    timer.unref()
    this.#windows.set(key, { latest: null, count: 0, first: now, last: now, timer })
  }

  async #close(key: string): Promise<void> {
    const window = this.#windows.get(key)
    if (window === undefined) return
    clearTimeout(window.timer)
    this.#windows.delete(key)
    const { latest, count, first, last } = window
    if (latest !== null) await this.#append(latest, { count, first, last })
  }

  /** A refusal stands whether or not it can be recorded: nothing runs either way. */
  async #append(
    refused: RefusedLaunch,
    folded: RecordBodies['launch.refused']['folded'],
  ): Promise<void> {
    try {
      await this.#audit.append(bodyOf(refused, folded))
    } catch (error) {
      this.#log.error(
        { err: error, refusal: refused.refusal, folded },
        'a refusal is not on record',
      )
    }
  }

  /** Records what is still folded; for the end of the agent, or of one tenant. */
  async flush(tenant: string | null = null): Promise<void> {
    const those = [...this.#windows].filter(
      ([, { latest }]) => tenant === null || latest?.tenant === tenant,
    )
    await Promise.all(those.map(([key]) => this.#close(key)))
  }
}
