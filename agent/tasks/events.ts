/** The events of a tenant, or of the whole host: what is kept from a place on, and then what happens. */
import type { FastifyBaseLogger } from 'fastify'
import { type CanonicalObject, parseCanonical } from '../../policy/canonical.ts'
import type { EventScope, StoredEvent } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import { aboutRecord } from './event-facts.ts'
import type { EventIndex } from './event-index.ts'
import type { Ports } from './ports.ts'

/** For the index to come up with the log, ms; it is some 50 behind. */
const CATCH_UP_MS = 5000
/** Rows looked at together; between two pages others have their turn. */
const PAGE = 256

export interface EventFilter {
  /** Types, or what they begin with up to a dot; empty: all. */
  readonly types: readonly string[]
  /** Id of a pod; null: all. */
  readonly pod: string | null
  /** `KEY` or `KEY=value`, of which each has to be true. */
  readonly labels: readonly string[]
}

/** Where to begin; both null: with the oldest that is kept. */
export interface EventStart {
  /** The `next` of the last event that was seen. */
  readonly since: number | null
  /** ms since 1970. */
  readonly fromMs: number | null
}

export interface EventsCall {
  readonly scope: EventScope
  readonly filter: EventFilter
  readonly start: EventStart
  readonly follow: boolean
  /** The caller has gone. */
  readonly gone: AbortSignal
}

/** An event; or a span of the log of which not all is kept any more, because it was read too slowly. */
export type EventEntry =
  | ({ readonly record: number; readonly next: number } & CanonicalObject)
  | { readonly gap: { readonly from: number; readonly to: number } }

export type EventsPorts = Pick<Ports, 'tenants' | 'audit'> & {
  readonly events: EventIndex
  readonly log: Pick<FastifyBaseLogger, 'error'>
}

const gone = (oldest: number): ApiError =>
  new ApiError(
    'EVENTS_GONE',
    'Events from there on are not all kept any more. Go on from the oldest that is, and take what was missed from the state of the pods.',
    { oldest },
  )

/** The record to begin with. @throws ApiError EVENTS_GONE, BAD_REQUEST */
export async function beginningOf(ports: EventsPorts, call: EventsCall): Promise<number> {
  const { events } = ports.tenants
  const { since, fromMs } = call.start
  // What somebody was answered already is an event by now.
  const late = AbortSignal.any([call.gone, AbortSignal.timeout(CATCH_UP_MS)])
  await ports.events.more(ports.audit.size - 1, late)
  const { floor } = await events.page(call.scope, { from: 0, limit: 1 })
  if (since !== null) {
    if (since < floor) throw gone(floor)
    if (since > ports.events.next) {
      const sentence = `There is no event ${since} yet: positions are the next of events of this host.`
      throw new ApiError('BAD_REQUEST', sentence)
    }
    return since
  }
  if (fromMs === null) return floor
  const oldest = await events.oldestMs(call.scope)
  if (floor > 0 && (oldest === null || fromMs < oldest)) throw gone(floor)
  return Math.max((await events.firstAt(call.scope, fromMs)) ?? ports.events.next, floor)
}

const hasLabel = ({ labels }: StoredEvent, wanted: string): boolean => {
  const [key = '', ...rest] = wanted.split('=')
  if (!Object.hasOwn(labels, key)) return false
  return rest.length === 0 || labels[key] === rest.join('=')
}

const isOfPod = (event: StoredEvent, { pod, labels }: EventFilter): boolean =>
  (pod === null || event.pod === pod) && labels.every((label) => hasLabel(event, label))

const isOfType = (type: string, { types }: EventFilter): boolean =>
  types.length === 0 || types.some((one) => type === one || type.startsWith(`${one}.`))

async function viewOf(
  ports: EventsPorts,
  stored: StoredEvent,
  filter: EventFilter,
): Promise<EventEntry | null> {
  const { record, launch, pod, attempt, name, labels } = stored
  const { bytes } = await ports.audit.read(record)
  const { type, time, tenant, actor, facts } = aboutRecord(parseCanonical(bytes))
  if (!isOfType(type, filter)) return null
  return {
    record,
    next: record + 1,
    time,
    type,
    tenant,
    pod,
    launch,
    attempt,
    name,
    labels,
    actor,
    facts,
  }
}

/** What of a page the caller wants. */
async function* chosen(
  ports: EventsPorts,
  stored: readonly StoredEvent[],
  { filter, start: { fromMs } }: EventsCall,
): AsyncGenerator<EventEntry> {
  for (const one of stored) {
    if (!isOfPod(one, filter) || one.timeMs < (fromMs ?? 0)) continue
    // oxlint-disable-next-line no-await-in-loop -- a slow reader holds one record, not a page
    const view = await viewOf(ports, one, filter)
    if (view !== null) yield view
  }
}

/**
 * In the order of the log, each once. Ends with what there is, or with the caller when it follows.
 * @param from as `beginningOf` says
 */
export async function* eventsFrom(
  ports: EventsPorts,
  call: EventsCall,
  from: number,
): AsyncGenerator<EventEntry> {
  const { scope, follow, gone: left } = call
  let next = from
  while (!left.aborted && !ports.events.stopped) {
    // Taken before the page: every record before it is in the index by then, whoever's it is.
    const known = ports.events.next
    // oxlint-disable-next-line no-await-in-loop -- one page after the other
    const { events, floor } = await ports.tenants.events.page(scope, { from: next, limit: PAGE })
    if (floor > next) yield { gap: { from: next, to: floor } }
    yield* chosen(ports, events, call)
    const seen = (events.at(-1)?.record ?? next - 1) + 1
    next = events.length < PAGE ? Math.max(known, seen) : seen
    if (events.length === PAGE) continue
    if (!follow) return
    // oxlint-disable-next-line no-await-in-loop
    await ports.events.more(next, left)
  }
}
