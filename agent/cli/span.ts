/** Spans of time on the command line. */
import { InvalidArgumentError } from 'commander'

const MS: Readonly<Record<string, number>> = { d: 86_400_000, h: 3_600_000, m: 60_000, s: 1000 }

/** Milliseconds of `24h`, `30d`. @throws InvalidArgumentError */
export function span(text: string): number {
  const [, count, unit = ''] = /^(\d{1,6})([dhms])$/u.exec(text) ?? []
  if (count === undefined) throw new InvalidArgumentError('It must be as 24h, 30d, 10m or 90s.')
  return Number(count) * (MS[unit] ?? 0)
}
