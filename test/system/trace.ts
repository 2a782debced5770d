/**
 * What strace saw of VMMs, held against the rules that their binary prints: every call is one that a rule of
 * the filter in force allows, and a rule that no call met is one that could go.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { type Program, startProgram } from './processes.ts'

export const STRACE = '/usr/bin/strace'

/** A filter as `casemate-vmm --filters` prints it. */
export interface Filter {
  readonly digest: string
  readonly rules: readonly Rule[]
}
export interface Rule {
  readonly call: string
  readonly number: number
  readonly when: readonly {
    readonly argument: number
    readonly mask: string
    readonly value: string
  }[]
  readonly why: string
  readonly rare: string | null
}
export const KINDS = ['start', 'control', 'io', 'vcpu'] as const
export type Kind = (typeof KINDS)[number]
export type Filters = Readonly<Record<Kind, Filter>>

export const filtersOf = (vmm: string): Filters =>
  JSON.parse(execFileSync(vmm, ['--filters'], { encoding: 'utf8', env: {} })) as Filters

/** Follows a process and what it starts, each call with its number and raw arguments. Ends with them. */
export const follow = (pid: number, output: string): Promise<Program> =>
  startProgram(
    [STRACE, '-f', '-Y', '-n', '-e', 'raw=all', '-o', output, '-p', String(pid)],
    `${STRACE}: Process `,
  )

export interface Seen {
  /** Rules that no call met, of those that say they are met in every life. */
  readonly unmet: readonly string[]
  /** The rare ones that were met. */
  readonly rare: readonly string[]
  /** Calls that no rule in force allows. */
  readonly unknown: readonly string[]
}

const nameOf = (kind: Kind, rule: Rule): string => `${kind} ${rule.call}: ${rule.why}`

const CALL = /^(\d+)<([^>]*)> \[ *(\d+)\] \w+\(([^)]*?)(?:\)| <unfinished)/u
const EXECUTED = /^(\d+)<[^>]*> \[ *\d+\] (?:execveat\(.*|<\.\.\. execveat resumed>\)) += 0$/u
const SECCOMP = 317

/** One call: who, which, with what. */
interface Call {
  readonly thread: string
  readonly comm: string
  readonly number: number
  readonly args: readonly bigint[]
}

function readCall(line: string): Call | null {
  const [, thread, comm, number, args] = CALL.exec(line) ?? []
  if (thread === undefined || comm === undefined || args === undefined) return null
  const values = args === '' ? [] : args.split(', ').map((word) => BigInt(word))
  return { thread, comm, number: Number(number), args: values }
}

const allows = (rule: Rule, { number, args }: Call): boolean =>
  rule.number === number &&
  rule.when.every(
    ({ argument, mask, value }) => ((args[argument] ?? 0n) & BigInt(mask)) === BigInt(value),
  )

/** What the name of a thread stands for; the first thread's is that of the program. */
const kindOf = (comm: string): Kind => {
  if (comm === 'io') return 'io'
  return comm.startsWith('vcpu') ? 'vcpu' : 'control'
}

/** Each call of a VMM that was made under a filter, with the kind of the newest one on its thread. */
function* filtered(lines: readonly string[]): Generator<readonly [Kind, Call, string]> {
  // Threads inherit the filter of the start; the first one, which executed the program, installs it.
  const filters = new Map<string, number>()
  for (const line of lines) {
    const executed = EXECUTED.exec(line)?.[1]
    if (executed !== undefined) filters.set(executed, 0)
    const call = readCall(line)
    // Spawn, and what it starts up to the moment where that becomes a VMM.
    if (call === null || call.comm === 'casemate-spawn') continue
    const count = filters.get(call.thread) ?? 1
    if (call.number === SECCOMP) filters.set(call.thread, count + 1)
    if (count > 0) yield [count === 1 ? 'start' : kindOf(call.comm), call, line]
  }
}

/**
 * @param output strace's, of a spawn and its VMMs
 * @param filters of the VMM's binary
 */
export function examine(output: string, filters: Filters): Seen {
  const met = new Set<Rule>()
  const unknown: string[] = []
  for (const [kind, call, line] of filtered(readFileSync(output, 'latin1').split('\n'))) {
    const own = filters[kind].rules.filter((rule) => allows(rule, call))
    for (const rule of own) met.add(rule)
    // The start allows what running threads may; that says nothing of whether they need it.
    const lent = kind === 'start' ? KINDS.flatMap((one) => filters[one].rules) : []
    const known = own.length > 0 || lent.some((rule) => allows(rule, call))
    if (!known) unknown.push(`${kind}: ${line}`)
  }
  const names = (wanted: (rule: Rule) => boolean): readonly string[] =>
    KINDS.flatMap((kind) => filters[kind].rules.filter(wanted).map((rule) => nameOf(kind, rule)))
  return {
    unmet: names((rule) => rule.rare === null && !met.has(rule)),
    rare: names((rule) => rule.rare !== null && met.has(rule)),
    unknown,
  }
}
