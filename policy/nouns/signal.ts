/** Signals by number, and how long a pod has between the first and the last. Numbers of x86-64 Linux (signal(7)). */
import { BadNoun, type Branded } from './brand.ts'

/** 1 to 64. */
export type Signal = Branded<number, 'Signal'>

const NAMES: readonly string[] = (
  'HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP ' +
  'TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS'
).split(' ')
const ALIASES: Readonly<Record<string, string>> = { IOT: 'ABRT', CLD: 'CHLD', POLL: 'IO' }
const SIGNAL_MAX = 64
/** As glibc has them: it keeps 32 and 33 for itself. */
const REALTIME_MIN = 34
const realtime = /^RT(?<from>MIN|MAX)(?:(?<sign>[+-])(?<offset>[1-9]|[1-2][0-9]|30))?$/u

function realtimeNumber(name: string): number | null {
  const groups = realtime.exec(name)?.groups
  if (groups === undefined) return null
  const { from, sign = '+', offset = '0' } = groups
  if (offset !== '0' && (from === 'MIN') !== (sign === '+')) return null
  return from === 'MIN' ? REALTIME_MIN + Number(offset) : SIGNAL_MAX - Number(offset)
}

/** A number in digits, or a name with or without SIG. */
function numberOf(text: string): number | null {
  if (/^(?:[1-9]|[1-5][0-9]|6[0-4])$/u.test(text)) return Number(text)
  const name = text.startsWith('SIG') ? text.slice(3) : text
  const at = NAMES.indexOf(ALIASES[name] ?? name)
  return at === -1 ? realtimeNumber(name) : at + 1
}

const isSignal = (number: number | null): number is Signal => number !== null

/**
 * `TERM`, `SIGTERM`, `15`, `RTMIN+3`, `SIGRTMAX-1`; upper case, as images and kill(1) have them.
 * @throws BadNoun
 */
export function parseSignal(input: unknown): Signal {
  const number = typeof input === 'string' ? numberOf(input) : null
  if (isSignal(number)) return number
  throw new BadNoun(
    'signal',
    `must be a name of signal(7), with or without SIG, or a number from 1 to ${SIGNAL_MAX}`,
  )
}

export const SIGTERM: Signal = parseSignal('TERM')
export const SIGKILL: Signal = parseSignal('KILL')

/** Milliseconds from a pod's stop signal to KILL. */
export type StopTimeoutMs = Branded<number, 'StopTimeoutMs'>
export const STOP_MS_MAX = 600_000
export const DEFAULT_STOP_MS = 10_000

const isStopTimeoutMs = (input: unknown): input is StopTimeoutMs =>
  typeof input === 'number' && Number.isInteger(input) && input >= 0 && input <= STOP_MS_MAX

/** @throws BadNoun */
export function parseStopTimeoutMs(input: unknown): StopTimeoutMs {
  if (isStopTimeoutMs(input)) return input
  throw new BadNoun('stop timeout', `must be 0 to ${STOP_MS_MAX} ms`)
}
