/** What the policies say of an action that has no plan, as a decision or a Refusal. */
import type { ActivePolicies } from './cedar/policies.ts'
import type { Verdict } from './cedar/verdict.ts'
import type { Digest } from './nouns/digest.ts'
import { Refusal } from './refusal.ts'

export interface PolicyDecision {
  readonly policyIds: readonly string[]
  readonly reasons: readonly string[]
  readonly policySetDigest: Digest
}

/** @param what the beginning of the sentence, as `Executing in the pod` */
export function decidedBy(
  verdict: Verdict,
  policies: ActivePolicies,
  what: string,
): PolicyDecision | Refusal {
  const reasons = verdict.policyIds.map((id) => policies.note(id)?.reason ?? id)
  if (verdict.kind === 'allowed') {
    return { policyIds: verdict.policyIds, reasons, policySetDigest: policies.digest }
  }
  if (verdict.kind === 'error') {
    return new Refusal(
      'POLICY_ERROR',
      'The policy could not be evaluated, and what cannot be evaluated is denied. The operator of the host has to correct it.',
      { problem: verdict.problem },
      verdict.policyIds,
    )
  }
  const codes = new Set(verdict.policyIds.map((id) => policies.note(id)?.code))
  const [only] = codes
  const code = codes.size === 1 && only !== null && only !== undefined ? only : 'POLICY_DENIED'
  const why = reasons.length > 0 ? reasons.join(' ') : 'No policy permits it.'
  return new Refusal(code, `${what} is not permitted: ${why}`, {}, verdict.policyIds)
}
