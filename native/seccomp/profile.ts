/**
 * An OCI seccomp profile (runtime-spec config-linux.md, "seccomp"), read strictly. Only what means
 * something on x86-64 without a supervisor is taken: no TRACE, no NOTIFY, no listener.
 */
import { BadShape, integer, list, type Members, members, oneOf, text } from '../shape.ts'

export const ACTIONS = [
  'SCMP_ACT_ALLOW',
  'SCMP_ACT_ERRNO',
  'SCMP_ACT_KILL',
  'SCMP_ACT_KILL_PROCESS',
  'SCMP_ACT_KILL_THREAD',
  'SCMP_ACT_LOG',
  'SCMP_ACT_TRAP',
] as const
export type SeccompAction = (typeof ACTIONS)[number]

export const OPERATORS = [
  'SCMP_CMP_NE',
  'SCMP_CMP_LT',
  'SCMP_CMP_LE',
  'SCMP_CMP_EQ',
  'SCMP_CMP_GE',
  'SCMP_CMP_GT',
  'SCMP_CMP_MASKED_EQ',
] as const
export type SeccompOperator = (typeof OPERATORS)[number]

/** One comparison of a system call's argument, as 64 bits. For MASKED_EQ `value` is the mask. */
export interface SeccompArgument {
  /** 0 to 5. */
  readonly index: number
  readonly value: number
  readonly valueTwo: number
  readonly op: SeccompOperator
}

/** Calls that get `action` when every one of `args` holds. */
export interface SeccompRule {
  readonly names: readonly string[]
  readonly action: SeccompAction
  /** errno of SCMP_ACT_ERRNO; null is EPERM. */
  readonly errnoRet: number | null
  readonly args: readonly SeccompArgument[]
}

export interface SeccompProfile {
  readonly defaultAction: SeccompAction
  readonly defaultErrnoRet: number | null
  readonly syscalls: readonly SeccompRule[]
}

const RULES_MAX = 512
const NAMES_MAX = 512
const ERRNO_MAX = 4095

const optional = (found: Members, names: readonly string[], more: readonly string[]): Members =>
  members({ ...Object.fromEntries(more.map((name) => [name, null])), ...found }, 'seccomp', [
    ...names,
    ...more,
  ])

const errno = (value: unknown): number | null =>
  value === null ? null : integer(value, 'errnoRet', 0, ERRNO_MAX)

function readArgument(value: unknown, at: string): SeccompArgument {
  if (typeof value !== 'object' || value === null) throw new BadShape(at, 'must be an object')
  const found = optional({ ...value }, ['index', 'value', 'op'], ['valueTwo'])
  return {
    index: integer(found['index'], `${at}.index`, 0, 5),
    value: integer(found['value'], `${at}.value`),
    valueTwo: integer(found['valueTwo'] ?? 0, `${at}.valueTwo`),
    op: oneOf(found['op'], `${at}.op`, OPERATORS),
  }
}

function readRule(value: unknown, at: string): SeccompRule {
  if (typeof value !== 'object' || value === null) throw new BadShape(at, 'must be an object')
  const found = optional({ ...value }, ['names', 'action'], ['errnoRet', 'args'])
  return {
    names: list(found['names'], `${at}.names`, NAMES_MAX, (name, place) => text(name, place, 64)),
    action: oneOf(found['action'], `${at}.action`, ACTIONS),
    errnoRet: errno(found['errnoRet']),
    args: list(found['args'] ?? [], `${at}.args`, 6, readArgument),
  }
}

/** @throws BadShape */
export function parseSeccompProfile(value: unknown): SeccompProfile {
  if (typeof value !== 'object' || value === null)
    throw new BadShape('seccomp', 'must be an object')
  const found = optional({ ...value }, ['defaultAction', 'syscalls'], ['defaultErrnoRet'])
  return {
    defaultAction: oneOf(found['defaultAction'], 'seccomp.defaultAction', ACTIONS),
    defaultErrnoRet: errno(found['defaultErrnoRet']),
    syscalls: list(found['syscalls'], 'seccomp.syscalls', RULES_MAX, readRule),
  }
}
