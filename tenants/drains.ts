/** The host's drain, as operators have it. */
import type { OperatorScope } from './scope.ts'
import {
  countDrained,
  type DrainCounts,
  deleteDrain,
  type HostDrain,
  noteReported,
  putDrain,
  selectDrain,
} from './store/drain.ts'
import type { Store } from './store/tables.ts'

export class Drains {
  readonly #store: Store
  readonly #now: () => number

  /** @param now ms since 1970 */
  constructor(store: Store, now: () => number) {
    this.#store = store
    this.#now = now
  }

  /** null: the host is not drained. */
  async get(): Promise<HostDrain | null> {
    return await selectDrain(this.#store)
  }

  /**
   * Begins a drain, or moves the deadline of the one there is.
   * @param record puts it on record; when it throws nothing is changed
   */
  async begin(
    { identity }: OperatorScope,
    deadlineMs: number,
    record: (drain: HostDrain) => Promise<unknown>,
  ): Promise<HostDrain> {
    return await this.#store.transaction().execute(async (transaction) => {
      const nowMs = this.#now()
      const before = await selectDrain(transaction)
      const sinceMs = before?.sinceMs ?? nowMs
      const drain = { sinceMs, untilMs: nowMs + deadlineMs, identity, reportedMs: null }
      await putDrain(transaction, drain)
      await record(drain)
      return drain
    })
  }

  /** true when there was one. */
  async end(_operator: OperatorScope): Promise<boolean> {
    return await deleteDrain(this.#store)
  }

  async counts({ sinceMs }: HostDrain): Promise<DrainCounts> {
    return await countDrained(this.#store, { sinceMs, nowMs: this.#now() })
  }

  async reported(drain: HostDrain): Promise<void> {
    await noteReported(this.#store, drain, this.#now())
  }
}
