/**
 * Keeps the index of events up with the log. The log is the journal: a record is an event once it is durable there, and
 * the index says how far it has come, in the same transaction. So an agent that ends at any moment loses and doubles none.
 */
import type { FastifyBaseLogger } from 'fastify'
import { parseCanonical } from '../../policy/canonical.ts'
import type { NewEvent, Tenants } from '../../tenants/index.ts'
import type { AuditPort } from '../audit-gate.ts'

/** Records of one transaction. */
const BATCH_MAX = 256
/** Of a log from before there were events: older records are no events. */
const FIRST_MAX = 65_536
/** Records of one launch come close together: one transaction for them, and none in their way. */
const LINGER_MS = 50
/** After the store took nothing, or the log could not be read. */
const AGAIN_MS = 1000

const memberOf = (record: unknown, name: string): unknown =>
  typeof record === 'object' && record !== null ? Reflect.get(record, name) : undefined

const textOf = (record: unknown, name: string): string | null => {
  const found = memberOf(record, name)
  return typeof found === 'string' ? found : null
}

function eventOf(index: number, bytes: Buffer): NewEvent {
  const record = parseCanonical(bytes)
  return {
    record: index,
    tenant: textOf(record, 'tenant'),
    timeMs: Date.parse(textOf(record, 'time') ?? ''),
    launch: textOf(record, 'launch_id'),
    isFirst: textOf(record, 'type') === 'tenant.created',
  }
}

interface IndexPorts {
  readonly tenants: Pick<Tenants, 'events'>
  readonly audit: AuditPort
  readonly log: Pick<FastifyBaseLogger, 'error'>
}

export class EventIndex {
  readonly #ports: IndexPorts
  readonly #waiting = new Set<() => void>()
  #next = 0
  #busy: Promise<void> | null = null
  #again = false
  #stopped = false
  #timer: NodeJS.Timeout | null = null
  #forgetLog: () => void = () => undefined

  constructor(ports: IndexPorts) {
    this.#ports = ports
  }

  /** Goes on where the agent before this one ended. */
  async start(): Promise<void> {
    this.#forgetLog = this.#ports.audit.onGrowth(() => {
      this.#soon(LINGER_MS)
    })
    this.#look()
    await this.#busy
  }

  /** Resolves when nothing is written any more; the next agent goes on from here. */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#forgetLog()
    if (this.#timer !== null) clearTimeout(this.#timer)
    await this.#busy
    for (const wake of this.#waiting) wake()
  }

  get stopped(): boolean {
    return this.#stopped
  }

  /** The first record that is no event yet. */
  get next(): number {
    return this.#next
  }

  /** Resolves when there are events from record `next` on, or `gone` is aborted, or the agent ends. */
  async more(next: number, gone: AbortSignal): Promise<void> {
    if (this.#next > next || gone.aborted) return
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        this.#waiting.delete(wake)
        gone.removeEventListener('abort', wake)
        resolve()
      }
      this.#waiting.add(wake)
      gone.addEventListener('abort', wake, { once: true })
    })
  }

  #soon(ms: number): void {
    if (this.#stopped) return
    this.#timer ??= setTimeout(() => {
      this.#timer = null
      this.#look()
    }, ms).unref()
  }

  #look(): void {
    this.#again = true
    this.#busy ??= this.#run().finally(() => {
      this.#busy = null
    })
  }

  async #run(): Promise<void> {
    try {
      while (this.#again) {
        this.#again = false
        // oxlint-disable-next-line no-await-in-loop -- one batch after the other
        await this.#catchUp()
      }
    } catch (error) {
      this.#ports.log.error({ err: error }, 'events are behind the log')
      this.#soon(AGAIN_MS)
    }
  }

  async #catchUp(): Promise<void> {
    const { audit, tenants } = this.#ports
    for (;;) {
      const { size } = audit
      // oxlint-disable-next-line no-await-in-loop
      const from = await this.#from(size)
      const to = Math.min(from + BATCH_MAX, size)
      const indexes = Array.from({ length: Math.max(to - from, 0) }, (_, at) => from + at)
      // oxlint-disable-next-line no-await-in-loop
      const entries = await Promise.all(indexes.map((index) => audit.read(index)))
      // oxlint-disable-next-line no-await-in-loop
      await tenants.events.add(entries.map(({ index, bytes }) => eventOf(index, bytes)))
      this.#next = Math.max(to, from)
      if (indexes.length > 0) for (const wake of this.#waiting) wake()
      if (to >= audit.size) return
    }
  }

  /** A log that is shorter than the index was restored from an older copy: what is in the index is of no log. */
  async #from(size: number): Promise<number> {
    const { events } = this.#ports.tenants
    const known = await events.indexedTo()
    if (known !== null && (known <= size || size === 0)) return known
    const begin = Math.max(size - FIRST_MAX, 0)
    await events.begin(begin)
    return begin
  }
}
