/** The decision about one more process in a running pod: what the policies say, as a decision or a Refusal. */
import type { ActivePolicies } from './cedar/policies.ts'
import type { ExecQuery } from './cedar/query.ts'
import type { Digest } from './nouns/digest.ts'
import { Refusal } from './refusal.ts'

export interface ExecDecision {
  readonly policyIds: readonly string[]
  readonly reasons: readonly string[]
  readonly policySetDigest: Digest
}

export function decideExec(query: ExecQuery, policies: ActivePolicies): ExecDecision | Refusal {
  const verdict = policies.askExec(query)
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
  return new Refusal(code, `Executing in the pod is not permitted: ${why}`, {}, verdict.policyIds)
}
