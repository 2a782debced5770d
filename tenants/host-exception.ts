/**
 * An exception: an operator's word that a severe finding of the host is to be put up with, until a
 * day. Expired ones are kept, so that people see why launches stopped, until removed or replaced.
 */
import { BadNoun, type Branded, type ExceptableId } from '../policy/index.ts'

/** 90 days: what is put up with for longer is to be said again. */
export const EXCEPTION_MS_MAX = 7_776_000_000

/** One to 500 characters in one line. */
export type ExceptionReason = Branded<string, 'ExceptionReason'>

const isReason = (input: unknown): input is ExceptionReason =>
  typeof input === 'string' && /^[^\p{C}\p{Zl}\p{Zp}]{1,500}$/u.test(input) && input.trim() !== ''

/** @throws BadNoun */
export function parseExceptionReason(input: unknown): ExceptionReason {
  if (isReason(input)) return input
  throw new BadNoun('reason', 'must be 1 to 500 characters without control characters')
}

/** RFC 3339, with seconds and a zone. */
const instant = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})$/u

/** ms since 1970 of an RFC 3339 instant that lies ahead of `nowMs`, by 90 days at most. @throws BadNoun */
export function parseExceptionEnd(input: unknown, nowMs: number): number {
  const ms = typeof input === 'string' && instant.test(input) ? Date.parse(input) : Number.NaN
  if (ms > nowMs && ms <= nowMs + EXCEPTION_MS_MAX) return ms
  throw new BadNoun(
    'until',
    'must be a time within the next 90 days in the form of RFC 3339, such as 2027-01-31T18:00:00Z',
  )
}

export interface NewException {
  readonly finding: ExceptableId
  readonly reason: ExceptionReason
  /** ms since 1970. */
  readonly untilMs: number
}

export interface StoredException extends NewException {
  /** Who recorded it: `uid:<n>`. */
  readonly identity: string
  readonly createdMs: number
  /** Index of its host.exception_added record. */
  readonly record: number
}
