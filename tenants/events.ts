/** The index of events, with scopes: a tenant's are its own, all of them the operators'. */
import type { OperatorScope, TenantScope } from './scope.ts'
import {
  addEvents,
  beginIndex,
  type EventPage,
  firstEventAt,
  indexedTo,
  type NewEvent,
  oldestEventMs,
  type Subject,
  selectEvents,
} from './store/events.ts'
import type { Store } from './store/tables.ts'

export type EventScope = TenantScope | OperatorScope

const subjectOf = (scope: EventScope): Subject => ('tenant' in scope ? scope.tenant : 'all')

export class Events {
  readonly #store: Store

  constructor(store: Store) {
    this.#store = store
  }

  /** The first record of the log that is not in the index; null: it was never begun. */
  async indexedTo(): Promise<number | null> {
    return await indexedTo(this.#store)
  }

  /** Forgets what there is, and begins at that record. */
  async begin(next: number): Promise<void> {
    await beginIndex(this.#store, next)
  }

  /** Adds what follows in the log; all of it or nothing. */
  async add(events: readonly NewEvent[]): Promise<void> {
    await addEvents(this.#store, events)
  }

  async page(
    scope: EventScope,
    page: { readonly from: number; readonly limit: number },
  ): Promise<EventPage> {
    return await selectEvents(this.#store, subjectOf(scope), page)
  }

  /** The first record whose time is not before `timeMs`; null: none is kept. */
  async firstAt(scope: EventScope, timeMs: number): Promise<number | null> {
    return await firstEventAt(this.#store, subjectOf(scope), timeMs)
  }

  /** The time of the oldest event that is kept, ms since 1970; null: none is. */
  async oldestMs(scope: EventScope): Promise<number | null> {
    return await oldestEventMs(this.#store, subjectOf(scope))
  }
}
