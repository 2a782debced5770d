/** Whether and when a pod is started again, from how its last start went. Pure; the clock is the caller's. */
import { isOnFailure, type RestartRule, restartsMax } from './nouns/restart.ts'

/** Before the first restart in a row; each further one waits twice as long as the one before. */
export const RESTART_MS_MIN = 1000
export const RESTART_MS_MAX = 60_000
/** A start that ran so long was a good one: the next restart is the first of a row again. */
export const RESTART_HEALTHY_MS = 120_000

/** A start that is over. */
export interface EndedStart {
  readonly rule: RestartRule
  /** Restarts in a row that led to it. */
  readonly streak: number
  /** How long it ran, ms; null: it never did. */
  readonly ranMs: number | null
  /** The app ended by itself, with exit code 0. */
  readonly succeeded: boolean
}

export interface NextStart {
  readonly delayMs: number
  /** Restarts in a row with the next one. */
  readonly streak: number
}

/** The next start of the pod; null: there is none. */
export function nextStart({ rule, streak, ranMs, succeeded }: EndedStart): NextStart | null {
  if (succeeded && isOnFailure(rule)) return null
  const row = ranMs !== null && ranMs >= RESTART_HEALTHY_MS ? 0 : streak
  const most = restartsMax(rule)
  if (most !== null && row >= most) return null
  // 2 ** 1024 is Infinity, which the least of both takes as well.
  return { delayMs: Math.min(RESTART_MS_MIN * 2 ** row, RESTART_MS_MAX), streak: row + 1 }
}
