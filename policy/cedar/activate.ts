/**
 * The gate a policy set passes before it decides anything: sizes, ids, parse, strict validation
 * without errors and without warnings, a reason on each policy, and the canned questions.
 * All or nothing: what was active stays active when the gate refuses.
 */
import { checkParsePolicySet, policyToJson, validate } from '@cedar-policy/cedar-wasm/nodejs'
import { cannedExecs, cannedFiles, cannedQuestions, cannedVolumes } from './canned.ts'
import type { PolicyTexts } from './defaults.ts'
import { ActivePolicies, noteOf, type PolicyNote } from './policies.ts'
import { CEDAR_SCHEMA } from './schema.ts'

export const POLICIES_MAX = 500
export const POLICY_BYTES_MAX = 65_536
export const POLICY_SET_BYTES_MAX = 524_288
/** Cedar's parser recurses: 20,000 parentheses overflow its stack. */
export const POLICY_NESTING_MAX = 64
const policyIdForm = /^[a-z0-9][a-z0-9._-]{0,63}$/u

export interface Finding {
  /** null: it is about the set. */
  readonly policyId: string | null
  readonly problem: string
}

/** The set was refused, whole; `findings` say why. */
export class BadPolicySet extends Error {
  override readonly name = 'BadPolicySet'
  readonly code = 'BAD_POLICY_SET'
  readonly findings: readonly Finding[]
  constructor(findings: readonly Finding[]) {
    const lines = findings.map((one) => `${one.policyId ?? 'policy set'}: ${one.problem}`)
    super(`the policy set was refused and nothing changed: ${lines.join('; ').slice(0, 2000)}`)
    this.findings = findings
  }
}

/** @throws BadPolicySet */
export function activatePolicies(texts: PolicyTexts): ActivePolicies {
  insist(sizeFindings(texts))
  const notes = new Map<string, PolicyNote>()
  insist(guarded(() => parseFindings(texts, notes)))
  insist(guarded(() => validationFindings(texts)))
  const policies = new ActivePolicies(texts, notes)
  insist(cannedFindings(policies))
  return policies
}

function insist(findings: readonly Finding[]): void {
  if (findings.length > 0) throw new BadPolicySet(findings)
}

/** Some input makes Cedar throw instead of answer. */
function guarded(check: () => readonly Finding[]): readonly Finding[] {
  try {
    return check()
  } catch (error) {
    return [{ policyId: null, problem: `Cedar threw: ${String(error)}` }]
  }
}

function sizeFindings(texts: PolicyTexts): readonly Finding[] {
  const entries = Object.entries(texts)
  const sizes = entries.map(([, text]) => Buffer.byteLength(text))
  const total = sizes.reduce((sum, size) => sum + size, 0)
  const findings: Finding[] = []
  if (entries.length < 1 || entries.length > POLICIES_MAX) {
    findings.push({ policyId: null, problem: `must hold 1 to ${POLICIES_MAX} policies` })
  }
  if (total > POLICY_SET_BYTES_MAX) {
    findings.push({ policyId: null, problem: `must be at most ${POLICY_SET_BYTES_MAX} bytes` })
  }
  for (const [index, [policyId, text]] of entries.entries()) {
    if (!policyIdForm.test(policyId)) {
      findings.push({ policyId: null, problem: `ids must be of the form ${policyIdForm.source}` })
    }
    if ((sizes[index] ?? 0) > POLICY_BYTES_MAX) {
      findings.push({ policyId, problem: `must be at most ${POLICY_BYTES_MAX} bytes` })
    } else if (nestingOf(text) > POLICY_NESTING_MAX) {
      findings.push({ policyId, problem: `must not nest deeper than ${POLICY_NESTING_MAX}` })
    }
  }
  return findings
}

/** Brackets open at once. Brackets in strings count too: simple, and only ever too strict by that. */
function nestingOf(text: string): number {
  let open = 0
  let deepest = 0
  for (const character of text) {
    if ('([{'.includes(character)) open += 1
    if (')]}'.includes(character)) open = Math.max(0, open - 1)
    deepest = Math.max(deepest, open)
  }
  return deepest
}

function parseFindings(texts: PolicyTexts, notes: Map<string, PolicyNote>): readonly Finding[] {
  const findings: Finding[] = []
  for (const [policyId, text] of Object.entries(texts)) {
    const parsed = policyToJson(text)
    if (parsed.type !== 'success') {
      const problem = parsed.errors.map((error) => error.message).join('; ')
      findings.push({ policyId, problem })
      continue
    }
    const note = noteOf(parsed.json.annotations ?? {})
    if (note === null) {
      const problem = 'needs @reason("a sentence"), and @code only with a refusal code'
      findings.push({ policyId, problem })
    } else {
      notes.set(policyId, note)
    }
  }
  if (findings.length > 0) return findings
  const set = checkParsePolicySet({ staticPolicies: { ...texts } })
  if (set.type === 'success') return []
  return set.errors.map((error) => ({ policyId: null, problem: error.message }))
}

/** validate() answers "success" when it ran, whatever it found; warnings hide impossible forbids. */
function validationFindings(texts: PolicyTexts): readonly Finding[] {
  const answer = validate({
    schema: CEDAR_SCHEMA,
    policies: { staticPolicies: { ...texts } },
    validationSettings: { mode: 'strict' },
  })
  if (answer.type !== 'success') {
    return answer.errors.map((error) => ({ policyId: null, problem: error.message }))
  }
  const named = [...answer.validationErrors, ...answer.validationWarnings]
  return [
    ...named.map((one) => ({ policyId: one.policyId, problem: one.error.message })),
    ...answer.otherWarnings.map((one) => ({ policyId: null, problem: one.message })),
  ]
}

function cannedFindings(policies: ActivePolicies): readonly Finding[] {
  const findings: Finding[] = []
  const asked = [
    ...cannedQuestions().map((one) => ({ question: one, verdict: policies.ask(one.query) })),
    ...cannedExecs().map((one) => ({ question: one, verdict: policies.askExec(one.query) })),
    ...cannedVolumes().map((one) => ({ question: one, verdict: policies.askVolume(one.query) })),
    ...cannedFiles().map((one) => ({ question: one, verdict: policies.askFile(one.query) })),
  ]
  for (const { question, verdict } of asked) {
    if (verdict.kind === 'error') {
      const [policyId = null] = verdict.policyIds
      findings.push({ policyId, problem: `errors on "${question.name}": ${verdict.problem}` })
    } else if (verdict.kind === 'allowed' && question.mustDeny) {
      const [policyId = null] = verdict.policyIds
      findings.push({ policyId, problem: `allows "${question.name}", which must be denied` })
    }
  }
  return findings
}
