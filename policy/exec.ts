/** The decision about one more process in a running pod. */
import type { ActivePolicies } from './cedar/policies.ts'
import type { ExecQuery } from './cedar/query.ts'
import { decidedBy, type PolicyDecision } from './decided.ts'
import type { Refusal } from './refusal.ts'

export type ExecDecision = PolicyDecision

export const decideExec = (query: ExecQuery, policies: ActivePolicies): ExecDecision | Refusal =>
  decidedBy(policies.askExec(query), policies, 'Executing in the pod')
