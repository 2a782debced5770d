/** What a pod's facts say of its health check: what is asked, what comes of it, and that it came to that. */
import type { PodHealth } from '../../native/pod-health.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { type PlannedHealth, UNHEALTHY_ACTIONS, type UnhealthyAction } from '../../policy/index.ts'
import type { Pod } from '../../tenants/index.ts'

export const healthFacts = (health: PlannedHealth | null): Canonical =>
  health && {
    probe: { ...health.probe },
    interval_ms: health.intervalMs,
    timeout_ms: health.timeoutMs,
    start_period_ms: health.startPeriodMs,
    start_interval_ms: health.startIntervalMs,
    retries: health.retries,
    on_unhealthy: health.onUnhealthy,
  }

const memberOf = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined

/** Whether the pod is asked; null: its launch has not been decided. */
export function isChecked({ facts }: Pick<Pod, 'facts'>): boolean | null {
  const health = memberOf(facts, 'health')
  return facts === null ? null : typeof health === 'object' && health !== null
}

export const unhealthyActionOf = ({ facts }: Pick<Pod, 'facts'>): UnhealthyAction =>
  UNHEALTHY_ACTIONS.find((one) => one === memberOf(memberOf(facts, 'health'), 'on_unhealthy')) ??
  'none'

const isMembers = (facts: Canonical): facts is { readonly [name: string]: Canonical } =>
  typeof facts === 'object' && facts !== null && !Array.isArray(facts)

/** Its facts, with what its health came to, for good. */
export const stoppedUnhealthy = (
  { facts }: Pick<Pod, 'facts'>,
  { answer, streak, sinceMs, output }: PodHealth,
  wellMs: number,
): Canonical => ({
  ...(isMembers(facts) ? facts : {}),
  unhealthy: {
    ...lastOf(answer, output),
    failing_streak: streak,
    since: new Date(sinceMs).toISOString(),
    well_ms: Math.max(0, Math.trunc(wellMs)),
  },
})

export interface LastCheck {
  readonly how: string
  readonly value: number | null
  readonly output: string
}

/** The last check, as it is shown. */
export const lastOf = (answer: PodHealth['answer'], output: string): LastCheck => ({
  how: answer.how,
  value: answer.value,
  output,
})

/** Whether it was stopped for its health; and then for how long it had been healthy at most, ms. */
export function unhealthyEnd({ facts }: Pick<Pod, 'facts'>): { readonly wellMs: number } | null {
  const ended = memberOf(facts, 'unhealthy')
  if (typeof ended !== 'object' || ended === null) return null
  return { wellMs: Number(memberOf(ended, 'well_ms') ?? 0) }
}
