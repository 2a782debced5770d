/**
 * The audit log while its disk or its signer may fail: what fails closes it, and it is opened anew
 * in the background. In between every append is refused, so nothing is launched, and the rest of the
 * agent goes on: logs, stops, and exits, which spawn keeps until they are on record.
 */
import type { FastifyBaseLogger } from 'fastify'
import {
  type Appended,
  AuditCorrupt,
  type AuditLog,
  AuditRollback,
  AuditUnavailable,
  type Entry,
  LogBusy,
  type RecordBody,
} from '../audit/index.ts'

const REOPEN_MS = 5000

export interface AuditPort {
  append(body: RecordBody): Promise<Appended>
  appendReserve(body: RecordBody): Promise<Appended | null>
  receipt(index: number): Promise<string>
  read(index: number): Promise<Entry>
  /** Calls `look` whenever there may be more records than before, until the function that it gives is called. */
  onGrowth(look: () => void): () => void
  readonly size: number
  readonly unavailable: AuditUnavailable | null
}

export class AuditGate implements AuditPort {
  readonly #open: () => Promise<AuditLog>
  readonly #logger: FastifyBaseLogger
  #log: AuditLog | null = null
  #why: AuditUnavailable | null = null
  #timer: NodeJS.Timeout | null = null
  readonly #watchers = new Set<() => void>()

  /** @param open opens the log; called again after each failure */
  constructor(open: () => Promise<AuditLog>, logger: FastifyBaseLogger) {
    this.#open = open
    this.#logger = logger
  }

  /**
   * Opens the log. A log that cannot be written now is waited for; one that is damaged, rolled back
   * or in use is for people to look at, and the agent must not start over it.
   * @throws AuditCorrupt, AuditRollback, LogBusy
   */
  async start(): Promise<void> {
    await this.#tryOpen()
    this.#timer = setInterval(() => void this.#check(), REOPEN_MS)
    this.#timer.unref()
  }

  async #tryOpen(): Promise<void> {
    try {
      this.#log = await this.#open()
      if (this.#why !== null) this.#logger.info('the audit log can be written again')
      this.#why = null
      this.#grown()
    } catch (error) {
      if (!(error instanceof AuditUnavailable)) throw error
      this.#why = error
      this.#logger.error({ err: error }, 'nothing is launched: the audit log cannot be written')
    }
  }

  async #check(): Promise<void> {
    if (this.unavailable === null) return
    const failed = this.#log
    this.#why = this.unavailable
    this.#log = null
    try {
      await failed?.close()
      await this.#tryOpen()
    } catch (error) {
      const known = error instanceof AuditCorrupt || error instanceof AuditRollback
      if (!known && !(error instanceof LogBusy)) this.#logger.error({ err: error }, 'audit log')
      else this.#logger.fatal({ err: error }, 'the audit log stays closed until it is looked at')
    }
  }

  get unavailable(): AuditUnavailable | null {
    return this.#log === null ? this.#why : this.#log.unavailable
  }

  get size(): number {
    return this.#log?.size ?? 0
  }

  #usable(): AuditLog {
    if (this.#log !== null) return this.#log
    throw this.#why ?? new AuditUnavailable('audit', new Error('the log is not open yet'))
  }

  onGrowth(look: () => void): () => void {
    this.#watchers.add(look)
    return () => this.#watchers.delete(look)
  }

  #grown(): void {
    for (const look of this.#watchers) look()
  }

  async append(body: RecordBody): Promise<Appended> {
    const appended = await this.#usable().append(body)
    this.#grown()
    return appended
  }

  async appendReserve(body: RecordBody): Promise<Appended | null> {
    const appended = await this.#usable().appendReserve(body)
    if (appended !== null) this.#grown()
    return appended
  }

  async receipt(index: number): Promise<string> {
    return await this.#usable().receipt(index)
  }

  async read(index: number): Promise<Entry> {
    return await this.#usable().read(index)
  }

  async close(): Promise<void> {
    if (this.#timer !== null) clearInterval(this.#timer)
    await this.#log?.close()
  }
}
