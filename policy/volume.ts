/** The decision about a change of a volume, or about reading one out. */
import type { ActivePolicies } from './cedar/policies.ts'
import type { VolumeQuery } from './cedar/query.ts'
import { decidedBy, type PolicyDecision } from './decided.ts'
import type { Refusal } from './refusal.ts'

export const decideVolume = (
  query: VolumeQuery,
  policies: ActivePolicies,
): PolicyDecision | Refusal =>
  decidedBy(policies.askVolume(query), policies, `To ${query.operation} the volume`)
