/**
 * Findings about a host: what is wrong with it, how much that matters, and what to do. Which of them
 * an operator may set aside for a time is said here, once for decision, store and API.
 */
import { BadNoun, type Branded } from './brand.ts'
import type { Digest } from './digest.ts'

/** `severe` keeps tenants that are not trusted from launching; `warning` is for people only. */
export type Severity = 'severe' | 'warning'

export interface HostFinding {
  /** Stable: `smt`, `cpu-mds`. */
  readonly id: string
  readonly severity: Severity
  /** What was found and why it matters; holds no figure that changes by itself. */
  readonly reason: string
  readonly fix: string
}

/** What was found on a host at one moment. */
export interface HostFindings {
  /** SHA-256 of the canonical `{"findings":[{id,reason,severity}],"kvm":…}`, findings by id. */
  readonly digest: Digest
  readonly findings: readonly HostFinding[]
}

/** A finding that an exception can be recorded for. */
export type ExceptableId = Branded<string, 'ExceptableId'>

/** What root's own walls refuse as well, or no VM starts without: nobody can set these aside here. */
const NEVER: ReadonlySet<string> = new Set(['kvm', 'kvm-capabilities', 'kvm-nested', 'kvm-paging'])
const findingId = /^[a-z][a-z0-9]*(?:-[a-z0-9]+){0,8}$/u
const ID_CHARACTERS_MAX = 64

const isExceptable = (input: unknown): input is ExceptableId =>
  typeof input === 'string' &&
  input.length <= ID_CHARACTERS_MAX &&
  findingId.test(input) &&
  !NEVER.has(input)

/** @throws BadNoun */
export function parseExceptableId(input: unknown): ExceptableId {
  if (isExceptable(input)) return input
  throw new BadNoun(
    'finding',
    `must be an id as \`doctor\` shows it, and for ${[...NEVER].join(', ')} there is no exception`,
  )
}

/** An exception in force: a severe finding that somebody took responsibility for. */
export interface HostException {
  readonly finding: ExceptableId
  /** Index of the record that says who, why and until when. */
  readonly record: number
}
