/**
 * What a tenant may read of words that spawn, the VMM and the guest wrote: paths of the host are the provider's. Operators
 * get them whole from `casemate debug` and from the audit log.
 */
import { type Canonical, type CanonicalObject, isCanonicalObject } from '../../policy/canonical.ts'
import { type Stage, type Step, stepOf } from './debug-steps.ts'

export const textOf = (value: Canonical | undefined): string | null =>
  typeof value === 'string' ? value : null

export const objectOf = (value: Canonical): CanonicalObject | null =>
  value !== null && typeof value === 'object' && isCanonicalObject(value) ? value : null

/** Beginning of a path of some host, in words around it. */
const PATH = /(?<![\p{L}\p{N}_.+-])\/[^\s/"'`,;:)\]}][^\s"'`,;:)\]}]*/gu
const HIDDEN = '(a path of the host)'

export const pathless = (text: string): string => text.replace(PATH, HIDDEN)

export function withoutPaths(value: Canonical): Canonical {
  if (typeof value === 'string') return pathless(value)
  if (Array.isArray(value)) return value.map(withoutPaths)
  const found = objectOf(value)
  if (found === null) return value
  return Object.fromEntries(Object.entries(found).map(([name, one]) => [name, withoutPaths(one)]))
}

/** Stages whose words are about the tenant's own: image and request. Paths there are the image's. */
const OWN: ReadonlySet<Stage> = new Set([
  'REQUEST',
  'IMAGE_PULL',
  'VERIFY',
  'POLICY',
  'BUILD',
  'APP_START',
])

/** Whether words of such a step are about what is the tenant's. */
export const areTenants = ({
  stage,
  who,
}: {
  readonly stage: Stage
  readonly who: Step['who'] | null
}): boolean => OWN.has(stage) && who === 'tenant'

/** The most exact code of a failed launch: what spawn said, unless it is a code of another version. */
export function exactOf(code: string, facts: CanonicalObject): string {
  const own = textOf(facts['spawn'])
  return own !== null && stepOf(own) !== null ? own : code
}

/** Codes of guest-init begin the VMM's sentence about APP_START. */
export function causeOf(exit: CanonicalObject): string {
  const cause = textOf(exit['cause']) ?? ''
  const [own = ''] = (textOf(exit['text']) ?? '').split(':')
  return cause === 'APP_START' && stepOf(own) !== null ? own : cause
}

/** What spawn refuses, as a sentence of the API's. */
export const sentenceOf = ({ message }: Error): string =>
  `${message.charAt(0).toUpperCase()}${pathless(message.slice(1))}.`

/** A sentence that came with a code, as its tenant may read it. */
export function wordsOf(code: string, text: string): string {
  const step = stepOf(code)
  return step !== null && areTenants(step) ? text : pathless(text)
}

/** A pod's end, as its tenant may read it. */
export function exitWords(exit: Canonical): Canonical {
  const found = objectOf(exit)
  const text = textOf(found?.['text'])
  return found === null || text === null ? exit : { ...found, text: wordsOf(causeOf(found), text) }
}
