/** When a pod is started again after it ended: docs/decisions/0027-a-restart-is-a-launch.md. */
import { BadNoun, type Branded } from './brand.ts'

/**
 * A rule in the words of a request: `on-failure`, `on-failure:N` with N restarts in a row at most, `always`,
 * `unless-stopped`. `no`, which is what a pod has without one, is null where rules are kept.
 */
export type RestartRule = Branded<string, 'RestartRule'>

export const RESTARTS_MAX = 1_000_000
const rule = /^(?:always|unless-stopped|on-failure(?::[1-9][0-9]{0,6})?)$/u

const isRule = (input: unknown): input is RestartRule =>
  typeof input === 'string' && rule.test(input) && (bound(input) ?? 1) <= RESTARTS_MAX

const bound = (text: string): number | null => {
  const [, count] = text.split(':')
  return count === undefined ? null : Number(count)
}

/** @throws BadNoun */
export function parseRestartRule(input: unknown): RestartRule | null {
  if (input === 'no') return null
  if (isRule(input)) return input
  throw new BadNoun(
    'restart',
    `must be no, on-failure, on-failure:N with N up to ${RESTARTS_MAX}, always or unless-stopped`,
  )
}

/** Restarts in a row after which the rule gives up; null: never. */
export const restartsMax = (of: RestartRule): number | null => bound(of)

export const isOnFailure = (of: RestartRule): boolean => of.startsWith('on-failure')
