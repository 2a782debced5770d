/** Parts of a pod's log: streams, a span of time, the last lines. */
import type { PodLogStream } from '../../native/pod-log.ts'
import type { Place, PodLogCall, PodLogEntry } from './pod-log.ts'

/** Lines of `tail`; for each one place is remembered while the log is read. */
export const TAIL_LINES_MAX = 100_000
const NEWLINE = 10

export interface LogSelection {
  /** null: all. */
  readonly streams: ReadonlySet<PodLogStream> | null
  /** Nanoseconds since 1970, of what is still in; null: open. */
  readonly fromNs: bigint | null
  readonly untilNs: bigint | null
  /** Only so many last lines of what the app wrote, and what follows them; null: all. */
  readonly tail: number | null
}

type Log = AsyncIterable<PodLogEntry>

/** What the app itself wrote: console and notes of the VMM are not lines of it. */
const isApp = (stream: PodLogStream): boolean => stream === 'stdout' || stream === 'stderr'

const isIn = (entry: PodLogEntry, { streams, fromNs, untilNs }: LogSelection): boolean =>
  entry.kind === 'gap' ||
  ((streams?.has(entry.stream) ?? true) &&
    (fromNs === null || entry.time_ns >= fromNs) &&
    (untilNs === null || entry.time_ns <= untilNs))

/** Gaps stay: whoever reads has to know that something is missing. */
export async function* select(log: Log, selection: LogSelection): AsyncGenerator<PodLogEntry> {
  for await (const entry of log) if (isIn(entry, selection)) yield entry
}

/** Where the last lines begin: in that record, after so many bytes. */
interface Cut {
  readonly place: Place
  readonly bytes: number
}

interface Lines {
  /** Of the record. */
  readonly place: Place
  readonly ends: readonly number[]
}

function endsOf(payload: Buffer): number[] {
  const ends: number[] = []
  for (let at = payload.indexOf(NEWLINE); at !== -1; at = payload.indexOf(NEWLINE, at + 1)) {
    ends.push(at + 1)
  }
  return ends
}

/** The ends of the last lines, so few of them that memory is bounded by what was asked for. */
class LineEnds {
  readonly #keep: number
  #records: Lines[] = []
  #count = 0

  constructor(keep: number) {
    this.#keep = keep
  }

  add(lines: Lines): void {
    if (lines.ends.length === 0) return
    this.#records.push(lines)
    this.#count += lines.ends.length
    let first = this.#records[0]
    while (first !== undefined && this.#count - first.ends.length >= this.#keep) {
      this.#count -= first.ends.length
      this.#records.shift()
      first = this.#records[0]
    }
  }

  /** After the `back`-th line end from the end; null when there are fewer. */
  cut(back: number): Cut | null {
    let skip = this.#count - back
    if (skip < 0) return null
    for (const { place, ends } of this.#records) {
      const bytes = ends[skip]
      if (bytes !== undefined) return { place, bytes }
      skip -= ends.length
    }
    return null
  }
}

/** Reads the log once, and finds where its last `tail` lines begin; null: all of it. */
async function findCut(log: Log, from: Place, selection: LogSelection): Promise<Cut | null> {
  const tail = selection.tail ?? 0
  const ends = new LineEnds(tail + 1)
  let before = from
  let isWhole = true
  for await (const entry of log) {
    const place = before.attempt === entry.attempt ? before : { attempt: entry.attempt, offset: 0 }
    before = { attempt: entry.attempt, offset: entry.kind === 'gap' ? entry.to : entry.next }
    if (entry.kind === 'gap' || !isApp(entry.stream) || !isIn(entry, selection)) continue
    ends.add({ place, ends: endsOf(entry.payload) })
    isWhole = entry.payload.at(-1) === NEWLINE
  }
  if (tail === 0) return { place: before, bytes: 0 }
  return ends.cut(isWhole ? tail + 1 : tail)
}

async function* trimmed(log: Log, { place, bytes }: Cut): AsyncGenerator<PodLogEntry> {
  let isFirst = true
  for await (const entry of log) {
    const cut = isFirst && entry.kind === 'record' && entry.attempt === place.attempt
    isFirst = false
    yield cut ? { ...entry, payload: entry.payload.subarray(bytes) } : entry
  }
}

/**
 * The log of a call, cut down to a selection. @param open reads from a place on; called twice for `tail`: once to find
 * the place, without following, and once to read.
 */
export async function* selectedLog(
  open: (call: PodLogCall) => Log,
  call: PodLogCall,
  selection: LogSelection,
): AsyncGenerator<PodLogEntry> {
  const { tail } = selection
  const start = { attempt: call.from.attempt ?? 0, offset: call.from.offset }
  const cut =
    tail === null ? null : await findCut(open({ ...call, follow: false }), start, selection)
  if (cut === null) {
    yield* select(open(call), selection)
    return
  }
  const from = { attempt: cut.place.attempt, offset: cut.place.offset }
  yield* select(trimmed(open({ ...call, from }), cut), selection)
}
