/** What one check says. A check reads through a HostRoot, or looks at what spawn described. */
import type { HostFinding } from '../../policy/index.ts'

/** Nothing is wrong, or the check is about something this host does not have. */
export interface Passed {
  readonly id: string
  readonly severity: 'ok'
  readonly reason: string
}

export type HostCheck = HostFinding | Passed

export const ok = (id: string, reason: string): Passed => ({ id, severity: 'ok', reason })

export const warning = (id: string, reason: string, fix: string): HostFinding => ({
  id,
  severity: 'warning',
  reason,
  fix,
})

export const severe = (id: string, reason: string, fix: string): HostFinding => ({
  id,
  severity: 'severe',
  reason,
  fix,
})

export const isFinding = (check: HostCheck): check is HostFinding => check.severity !== 'ok'

/** For a check that met a value it does not know, or could not read what it asks for. */
export const unknown = (id: string, what: string): HostFinding =>
  severe(
    id,
    `${what} could not be told, and what is not known is not taken for good.`,
    'Let the agent’s user read /proc and /sys as the kernel shows them, and report what it shows here.',
  )
