/** A pod's log as a stream: for programs one JSON object a line, for people the bytes themselves. */
import type { PodLogEntry } from '../tasks/pod-log.ts'

const NS_PER_MS = 1_000_000n

/** RFC 3339 with the nanoseconds that the VMM wrote. */
function timeOf(ns: bigint): string {
  const fraction = String(ns % 1_000_000_000n).padStart(9, '0')
  const ms = Number(ns / NS_PER_MS)
  // The VMM may write any number; what is no date has no text.
  if (ms > 8.64e15) return '9999-12-31T23:59:59.000000000Z'
  return new Date(ms).toISOString().replace(/\.\d{3}Z$/u, `.${fraction}Z`)
}

const lineOf = (found: PodLogEntry): string =>
  `${JSON.stringify(
    found.kind === 'gap'
      ? { attempt: found.attempt, gap: { from: found.from, to: found.to } }
      : {
          attempt: found.attempt,
          next: found.next,
          stream: found.stream,
          time: timeOf(found.time_ns),
          data: found.payload.toString('base64'),
        },
  )}\n`

type Log = AsyncIterable<PodLogEntry>

/** `{"attempt","next","stream","time","data"}` with `data` in base64, or `{"attempt","gap":{"from","to"}}`. */
export async function* asLines(log: Log): AsyncGenerator<string> {
  for await (const found of log) yield lineOf(found)
}

/** What the app wrote, standard output and error in the order they came; gaps leave no trace. */
export async function* asText(log: Log): AsyncGenerator<Buffer> {
  for await (const found of log) {
    if (found.kind === 'record' && (found.stream === 'stdout' || found.stream === 'stderr')) {
      yield found.payload
    }
  }
}
