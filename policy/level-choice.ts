/**
 * Which isolation level a launch gets: each level is asked about, the strongest first. A requested
 * level is exact. Without a request the strongest permitted one is taken; whether the host can give
 * it comes after, so a host without KVM never makes isolation weaker.
 */
import type { ActivePolicies } from './cedar/policies.ts'
import type { LaunchQuery } from './cedar/query.ts'
import { errorVerdict, type Verdict } from './cedar/verdict.ts'
import { violatedInvariant } from './invariants.ts'
import { type IsolationLevel, STRONGEST_FIRST } from './nouns/isolation.ts'
import { Refusal, type RefusalCode } from './refusal.ts'

export interface LevelChoice {
  readonly level: IsolationLevel
  /** All permitted levels, the strongest first. */
  readonly permitted: readonly IsolationLevel[]
  readonly policyIds: readonly string[]
  readonly reasons: readonly string[]
}

/** A verdict with the reasons of its policies, invariants included. */
interface Judged {
  readonly level: IsolationLevel
  readonly verdict: Verdict
  readonly reasons: readonly string[]
}

/** @throws Refusal */
export function chooseLevel(
  policies: ActivePolicies,
  query: Omit<LaunchQuery, 'isolation'>,
  requested: IsolationLevel | null,
): LevelChoice {
  const judged = STRONGEST_FIRST.map((level) => judge(policies, { ...query, isolation: level }))
  const permitted = judged.filter((one) => one.verdict.kind === 'allowed').map((one) => one.level)
  const concerned = judged.filter((one) => requested === null || one.level === requested)
  // Also without a request: an error at the strongest level must not make the next one win.
  for (const { level, verdict } of concerned) {
    if (verdict.kind === 'error') {
      throw new Refusal(
        'POLICY_ERROR',
        'The policy could not be evaluated, and what cannot be evaluated is denied. The operator of the host has to correct it.',
        { level, problem: verdict.problem },
        verdict.policyIds,
      )
    }
  }
  const chosen = concerned.find((one) => one.verdict.kind === 'allowed')
  if (chosen === undefined) throw denied(policies, concerned, permitted, requested)
  const { level, reasons, verdict } = chosen
  return { level, permitted, policyIds: verdict.policyIds, reasons }
}

function judge(policies: ActivePolicies, query: LaunchQuery): Judged {
  const level = query.isolation
  const verdict = policies.ask(query)
  const reasons = verdict.policyIds.map((id) => policies.note(id)?.reason ?? id)
  const invariant = violatedInvariant(level, query.tenant.trust, query.tenant.levels)
  if (invariant === null || verdict.kind === 'error') return { level, verdict, reasons }
  const fired = verdict.kind === 'denied'
  return {
    level,
    verdict: {
      kind: 'denied',
      policyIds: fired ? [...verdict.policyIds, invariant.id] : [invariant.id],
    },
    reasons: fired ? [...reasons, invariant.reason] : [invariant.reason],
  }
}

function denied(
  policies: ActivePolicies,
  concerned: readonly Judged[],
  permitted: readonly IsolationLevel[],
  requested: IsolationLevel | null,
): Refusal {
  // Without a request the weaker levels are denied for being weak; the strongest says what is wrong.
  const [judged = { level: 'vm', verdict: errorVerdict([], ''), reasons: [] } satisfies Judged] =
    concerned
  const { policyIds } = judged.verdict
  const reasons = judged.reasons.length > 0 ? judged.reasons : ['No policy permits it.']
  const code = codeOf(policies, policyIds, requested !== null && permitted.length > 0)
  const facts = { level: judged.level, requested, permitted, reasons }
  if (code !== 'ISOLATION_NOT_PERMITTED') {
    return new Refusal(code, `The launch is not permitted: ${reasons.join(' ')}`, facts, policyIds)
  }
  const instead =
    permitted.length > 0
      ? `Permitted: ${permitted.join(', ')}.`
      : 'No level is permitted for this launch.'
  return new Refusal(
    code,
    `Isolation level ${judged.level} is not permitted: ${reasons.join(' ')} ${instead}`,
    facts,
    policyIds,
  )
}

/**
 * When another level would have been permitted, the level is what is wrong. Else the codes that the
 * forbids carry say it, if they agree on one.
 */
function codeOf(
  policies: ActivePolicies,
  policyIds: readonly string[],
  otherLevelsPermitted: boolean,
): RefusalCode {
  if (otherLevelsPermitted) return 'ISOLATION_NOT_PERMITTED'
  const codes = new Set(
    policyIds.map((id) =>
      id.startsWith('invariant.') ? 'ISOLATION_NOT_PERMITTED' : policies.note(id)?.code,
    ),
  )
  const [only] = codes
  return codes.size === 1 && only !== null && only !== undefined ? only : 'POLICY_DENIED'
}
