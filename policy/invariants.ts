/**
 * The walls beside Cedar. They hold whatever the policy text says, also when it says
 * `permit(principal, action, resource);`, and the tests replace it by just that.
 */
import type { IsolationLevel } from './nouns/isolation.ts'
import type { Trust } from './nouns/tenant.ts'

export interface Invariant {
  readonly id: string
  readonly reason: string
}

const UNTRUSTED_NEEDS_VM: Invariant = {
  id: 'invariant.untrusted-needs-vm',
  reason: "Only trusted tenants may share the host's kernel, whatever the policy says.",
}

/** Spawn refuses such a launch too; saying so here gives the caller a sentence instead of a failure. */
const LEVEL_FILE: Invariant = {
  id: 'invariant.level-file',
  reason: "The host's root-owned level file does not name the tenant for this level.",
}

/** The invariant that forbids `level`, or null. */
export function violatedInvariant(
  level: IsolationLevel,
  trust: Trust,
  granted: readonly IsolationLevel[],
): Invariant | null {
  if (level === 'vm') return null
  if (trust !== 'trusted') return UNTRUSTED_NEEDS_VM
  return granted.includes(level) ? null : LEVEL_FILE
}
