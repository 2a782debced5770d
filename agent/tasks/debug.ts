/**
 * Why a pod is as it is: the stage that its newest start came to, the code that names it, its facts, the last lines of
 * its boot, and what to do. Nothing new is measured; it is read from what launch and end left in the store.
 *
 * A tenant gets the same but for paths and other facts of the host: the words of spawn and its parts are the provider's.
 */
import { followPodLog } from '../../native/pod-log-follow.ts'
import type { Canonical, CanonicalObject } from '../../policy/canonical.ts'
import type { Pod } from '../../tenants/index.ts'
import { isFinal, isOver } from '../../tenants/index.ts'
import { type Stage, type Step, stepOf } from './debug-steps.ts'
import type { Launching } from './launching.ts'
import type { Ports } from './ports.ts'
import {
  areTenants,
  causeOf,
  exactOf,
  objectOf,
  pathless,
  textOf,
  withoutPaths,
} from './tenant-words.ts'

const BOOT_LINES = 50
const LINE_CHARACTERS_MAX = 400

export interface Diagnosis {
  readonly stage: Stage
  /** The most exact there is: spawn's, the VMM's or the guest's before the one that the API answered. null: nothing is wrong. */
  readonly code: string | null
  readonly message: string | null
  readonly facts: CanonicalObject
  readonly who: Step['who'] | null
  readonly next: string
}

/** Where a launch failed of which the code says too little. */
const STAGE_OF: Readonly<Record<string, Stage>> = {
  resolve: 'IMAGE_PULL',
  decide: 'POLICY',
  build: 'BUILD',
  reserve: 'QUOTA',
  intent: 'RECORD',
  start: 'SPAWN',
}

const UNKNOWN = 'Another version’s code: operating.md of that version has it.'

/** @param at where it was, if the code is not known */
function told(code: string, at: Stage, rest: Pick<Diagnosis, 'message' | 'facts'>): Diagnosis {
  const step = stepOf(code)
  return {
    stage: step?.stage ?? at,
    code,
    ...rest,
    who: step?.who ?? 'provider',
    next: step?.next ?? UNKNOWN,
  }
}

function ofProblem({ problem }: Pod): Diagnosis | null {
  if (problem === null) return null
  const { code, message, stage = 'start', facts = {} } = problem
  const at = STAGE_OF[stage] ?? 'SPAWN'
  return told(exactOf(code, facts), at, { message, facts: { ...facts, failed_at: stage } })
}

/** Of an end, as spawn reports it; null: there was none. */
export function ofExit(exit: Canonical): Diagnosis | null {
  const facts = objectOf(exit)
  if (facts === null) return null
  return told(causeOf(facts), 'ENDED', { message: textOf(facts['text']), facts })
}

const NO_WORDS = { message: null, facts: {} } as const

const underWay = (stage: Stage, next: string): Diagnosis => ({
  stage,
  code: null,
  message: null,
  facts: {},
  who: null,
  next,
})

function ofLaunch({ state, level, imageDigest, recordIndex }: Pod): Diagnosis {
  if (state === 'running') return underWay('RUNNING', 'Nothing: it runs.')
  const wait = 'Wait: the launch is under way.'
  if (state === 'launching') return underWay(recordIndex === null ? 'RECORD' : 'SPAWN', wait)
  return underWay(level === null || imageDigest === null ? 'IMAGE_PULL' : 'BUILD', wait)
}

/** What can be told from one start of a pod. */
const diagnose = (pod: Pod): Diagnosis => ofProblem(pod) ?? ofExit(pod.exit) ?? ofLaunch(pod)

const ASK = 'This is the provider’s to mend: tell them the code and the launch’s id.'

/** As a tenant may see it. */
function forTenant(found: Diagnosis): Diagnosis {
  const { stage, who, message, facts } = found
  const next = who === 'provider' ? ASK : found.next
  if (areTenants({ stage, who })) return { ...found, next }
  const shown = objectOf(withoutPaths(facts)) ?? {}
  return { ...found, next, facts: shown, message: message === null ? null : pathless(message) }
}

/** The last lines of the guest's console and of the VMM's notes; none of a launch that never came so far. */
async function bootLines({ files }: DebugPorts, { id }: Pod): Promise<readonly string[]> {
  if (!(await files.hasLog(id))) return []
  const gone = new AbortController().signal
  const options = { since: 0, follow: false, ended: AbortSignal.abort(), gone }
  let lines: string[] = ['']
  for await (const entry of followPodLog(files.logPath(id), options)) {
    if (entry.kind === 'gap' || (entry.stream !== 'console' && entry.stream !== 'vmm')) continue
    const [rest = '', ...more] = entry.payload.toString('utf8').split(/\r?\n/u)
    lines.push(`${lines.pop() ?? ''}${rest}`, ...more)
    lines = lines.slice(-BOOT_LINES - 1).map((line) => line.slice(0, LINE_CHARACTERS_MAX))
  }
  return lines.filter((line) => line !== '').slice(-BOOT_LINES)
}

export type DebugPorts = Pick<Ports, 'tenants' | 'files'> & { readonly launching: Launching }

export interface DebugAnswer extends Diagnosis {
  readonly pod: string
  readonly launch: string
  readonly attempt: number
  readonly state: string
  readonly record: number | null
  readonly ended: boolean
  readonly boot: readonly string[]
}

/** @param whole for operators: with the host's paths */
export async function debug(
  ports: DebugPorts,
  pod: Pod,
  { whole }: { readonly whole: boolean },
): Promise<DebugAnswer> {
  // A start that is due is held back: why the one before ended is not what it waits for.
  const isHeld = ports.launching.held && isFinal(pod.state) && !isOver(pod)
  const found = isHeld ? told('HOST_DRAINING', 'REQUEST', NO_WORDS) : diagnose(pod)
  return {
    pod: pod.origin,
    launch: pod.id,
    attempt: pod.attempt,
    state: pod.state,
    record: pod.recordIndex,
    ended: isFinal(pod.state),
    ...(whole ? found : forTenant(found)),
    boot: await bootLines(ports, pod),
  }
}
