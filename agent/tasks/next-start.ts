/** What an end leads to: nothing, or another start of the pod, as its rule has it (docs/decisions/0027). */
import type { PodExit } from '../../native/spawn-answers.ts'
import { nextStart, Refusal } from '../../policy/index.ts'
import type { Pod, PodChanges } from '../../tenants/index.ts'
import { type PublicError, STATUSES } from '../errors.ts'
import { ImageError } from '../images/index.ts'
import { isChecked, unhealthyEnd } from './health-facts.ts'

/** Of answers that say what passes: no room now, no log, no KVM, a registry that is away, a full disk. */
export const PASSING: ReadonlySet<number> = new Set([429, 500, 502, 503, 507])

/** Refusals that are over by waiting alone, or by what somebody is about to do: a secret is renewed by removing it first. */
const waitable = new Set([
  'CONFIG_NOT_FOUND',
  'SECRET_NOT_FOUND',
  'ISOLATION_UNAVAILABLE',
  'LAUNCHES_FAILING',
  'LAUNCH_RATE_EXCEEDED',
  'PORT_TAKEN',
])

/** For a final move of the start. */
export type NextStartChange = Pick<PodChanges, 'restart'>

interface Ended {
  readonly nowMs: number
  readonly succeeded: boolean
  readonly waitMs: number
  /** At most, ms, however long ago it was started. */
  readonly ranMs?: number
}

function after(
  { restart, startedMs }: Pod,
  { nowMs, succeeded, waitMs, ranMs = Infinity }: Ended,
): NextStartChange {
  if (restart === null) return {}
  const { rule, streak } = restart
  const next = nextStart({
    rule,
    streak,
    ranMs: startedMs === null ? null : Math.min(nowMs - startedMs, ranMs),
    succeeded,
  })
  if (next === null) return {}
  return { restart: { dueMs: nowMs + Math.max(next.delayMs, waitMs), streak: next.streak } }
}

/** A start ended that had run. @param wellMs for how long it was healthy at most, which counts where a pod is asked */
export function afterExit(
  pod: Pod,
  exit: PodExit,
  { nowMs, wellMs }: { readonly nowMs: number; readonly wellMs: number },
): NextStartChange {
  const ill = unhealthyEnd(pod)
  const succeeded = ill === null && exit.how === 'code' && exit.value === 0
  // The VMM's times: no pod was healthy for longer than it ran.
  const ranMs = isChecked(pod) === true ? Math.max(wellMs, ill?.wellMs ?? 0) : Infinity
  return after(pod, { nowMs, succeeded, waitMs: 0, ranMs })
}

/** An agent ended while the start was being launched. The first start of a pod is its caller's to try again. */
export const afterInterruption = (pod: Pod, nowMs: number): NextStartChange =>
  pod.attempt === 0 ? {} : after(pod, { nowMs, succeeded: false, waitMs: 0 })

/** Whether a launch was decided against, rather than got in the way of. */
const isAgainst = (shown: PublicError): boolean =>
  shown instanceof Refusal ? !waitable.has(shown.code) : !PASSING.has(STATUSES[shown.code])

const waitOf = (shown: PublicError): number => {
  const seconds = shown instanceof ImageError ? undefined : shown.facts['retry_after_s']
  return typeof seconds === 'number' ? seconds * 1000 : 0
}

/** A restart did not come to run. What was decided against it ends the pod. */
export const afterFailure = (pod: Pod, shown: PublicError, nowMs: number): NextStartChange =>
  isAgainst(shown) ? {} : after(pod, { nowMs, succeeded: false, waitMs: waitOf(shown) })
