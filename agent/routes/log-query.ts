/** The query of a pod's log, from digits and times to a selection. */
import { type TOptional, type TString, type TUnsafe, Type } from '@fastify/type-provider-typebox'
import type { PodLogStream } from '../../native/pod-log.ts'
import { ApiError } from '../errors.ts'
import { type LogSelection, TAIL_LINES_MAX } from '../tasks/pod-log-select.ts'
import { closed } from './schemas.ts'

const digits = (pattern: string, description: string): TOptional<TString> =>
  Type.Optional(Type.String({ pattern, description }))
const time = (description: string): TOptional<TString> =>
  Type.Optional(
    Type.String({
      maxLength: 40,
      description: `${description}: RFC 3339, or a time ago such as 10m or 1h30m`,
    }),
  )
const flag = (description: string): TOptional =>
  Type.Optional(Type.Union([Type.Literal('true'), Type.Literal('false')], { description }))

const members = {
  follow: flag('Go on until the pod has ended and is not started again'),
  attempt: digits('^[0-9]{1,9}$', 'The `attempt` of the last record that was read'),
  since: digits('^[0-9]{1,15}$', 'The `next` of that record'),
  from: time('No record before'),
  until: time('No record after; not with follow'),
  tail: digits('^[0-9]{1,6}$', `The last lines of what the app wrote, up to ${TAIL_LINES_MAX}`),
  stream: Type.Optional(
    Type.Union([Type.Literal('stdout'), Type.Literal('stderr')], { description: 'This one alone' }),
  ),
}
export const LOG_QUERY: TUnsafe<LogQuery> = Type.Unsafe<LogQuery>(Type.Object(members, closed))

export interface LogQuery {
  readonly follow?: string
  readonly attempt?: string
  readonly since?: string
  readonly from?: string
  readonly until?: string
  readonly tail?: string
  readonly stream?: string
}

const NS_PER_MS = 1_000_000n
const SECONDS: Readonly<Record<string, number>> = { d: 86_400, h: 3600, m: 60, s: 1 }
const rfc3339 =
  /^\d{4}-\d{2}-\d{2}[Tt]\d{2}:\d{2}:\d{2}(?<fraction>\.\d{1,9})?(?:[Zz]|[+-]\d{2}:\d{2})$/u

/** Milliseconds of `1h30m`; null: none such. */
function spanOf(text: string): number | null {
  if (!/^(?:\d{1,9}[dhms])+$/u.test(text)) return null
  const parts = [...text.matchAll(/(\d+)([dhms])/gu)]
  return (
    parts.reduce((sum, [, count, unit]) => sum + Number(count) * (SECONDS[unit ?? ''] ?? 0), 0) *
    1000
  )
}

/** @throws ApiError BAD_REQUEST */
function nsOf(name: string, text: string, nowMs: number): bigint {
  const span = spanOf(text)
  if (span !== null) return BigInt(Math.max(nowMs - span, 0)) * NS_PER_MS
  const fraction = rfc3339.exec(text)?.groups?.['fraction'] ?? ''
  // The whole seconds, and the fraction by its digits: a Date has milliseconds.
  const ms = rfc3339.test(text) ? Date.parse(text.replace(fraction, '')) : Number.NaN
  if (Number.isNaN(ms)) {
    const sentence = `${name} must be a time as RFC 3339 has it, such as 2027-01-31T18:00:00Z, or a span such as 10m.`
    throw new ApiError('BAD_REQUEST', sentence)
  }
  return BigInt(ms) * NS_PER_MS + BigInt(fraction.slice(1).padEnd(9, '0'))
}

/** The same in milliseconds, which is as fine as most clocks are read. @throws ApiError BAD_REQUEST */
export const msOf = (name: string, text: string, nowMs: number): number =>
  Number(nsOf(name, text, nowMs) / NS_PER_MS)

const streamsOf = (stream: string | undefined): ReadonlySet<PodLogStream> | null => {
  if (stream === 'stdout' || stream === 'stderr') return new Set([stream])
  return null
}

/** @throws ApiError BAD_REQUEST */
export function selectionOf(query: LogQuery, nowMs: number): LogSelection {
  const { from, until, tail, stream, follow } = query
  if (follow === 'true' && until !== undefined) {
    throw new ApiError(
      'BAD_REQUEST',
      'A log is followed to its end, so until has no place beside follow.',
    )
  }
  if (Number(tail ?? 0) > TAIL_LINES_MAX) {
    throw new ApiError('BAD_REQUEST', `The last lines may be ${TAIL_LINES_MAX} at most.`)
  }
  return {
    streams: streamsOf(stream),
    fromNs: from === undefined ? null : nsOf('from', from, nowMs),
    untilNs: until === undefined ? null : nsOf('until', until, nowMs),
    tail: tail === undefined ? null : Number(tail),
  }
}
