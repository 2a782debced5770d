/**
 * What an answer of Cedar means here. Cedar by itself fails open: a forbid whose condition errors is
 * skipped and the answer says "allow", with the error beside it. So only an answer that is a
 * success, says allow, and carries no error at all, allows.
 */
import type { AuthorizationAnswer } from '@cedar-policy/cedar-wasm/nodejs'

export type Verdict =
  /** `policyIds`: the permits that allowed it. */
  | { readonly kind: 'allowed'; readonly policyIds: readonly string[] }
  /** `policyIds`: all forbids that fired; empty when nothing permitted it. */
  | { readonly kind: 'denied'; readonly policyIds: readonly string[] }
  /** Denied because it could not be evaluated; `policyIds`: the policies that could not. */
  | { readonly kind: 'error'; readonly policyIds: readonly string[]; readonly problem: string }

const PROBLEM_CHARACTERS_MAX = 500

export const errorVerdict = (policyIds: readonly string[], problem: string): Verdict => ({
  kind: 'error',
  policyIds,
  problem: problem.slice(0, PROBLEM_CHARACTERS_MAX),
})

export function verdictOf(answer: AuthorizationAnswer): Verdict {
  if (answer.type !== 'success') {
    return errorVerdict([], answer.errors.map((error) => error.message).join('; '))
  }
  const { decision, diagnostics } = answer.response
  if (diagnostics.errors.length > 0) {
    return errorVerdict(
      diagnostics.errors.map((error) => error.policyId).toSorted(),
      diagnostics.errors.map((error) => error.error.message).join('; '),
    )
  }
  // Sorted: Cedar gives them in no order, and records of equal decisions should be equal.
  const policyIds = diagnostics.reason.toSorted()
  return decision === 'allow' ? { kind: 'allowed', policyIds } : { kind: 'denied', policyIds }
}
