/** How a pod is asked whether it does its work, with the meanings of Docker's HEALTHCHECK (docs/decisions/0031). */
import { BadNoun } from './brand.ts'
import { type Arguments, parseArguments } from './process.ts'

/** Bounds of the times, ms; native/ticket/src/health.rs has the same. */
export const HEALTH_MS_MIN = 1000
export const HEALTH_MS_MAX = 3_600_000
export const HEALTH_RETRIES_MAX = 100
const PATH_CHARACTERS_MAX = 1024
/** Beside an app's own arguments, so that the spec holds both. */
const COMMAND_CHARACTERS_MAX = 8192
const PORT_MAX = 65_535

/** One question. */
export type Probe =
  /** A program beside the app that ends with 0. */
  | { readonly kind: 'exec'; readonly args: Arguments }
  /** A port of the pod's loopback address that takes a connection. */
  | { readonly kind: 'tcp'; readonly port: number }
  /** A server there that answers a GET of the path with a status from 200 to 399. */
  | { readonly kind: 'http'; readonly port: number; readonly path: string }

/** Times in ms. */
export interface HealthTimes {
  readonly intervalMs: number
  readonly timeoutMs: number
  /** Wrong answers do not count in it, unless there was a right one. */
  readonly startPeriodMs: number
  /** From one check to the next in that time. */
  readonly startIntervalMs: number
  /** Wrong answers in a row that make it unhealthy. */
  readonly retries: number
}

/** What the pod is asked. */
export interface HealthCheck extends HealthTimes {
  readonly probe: Probe
}

/** What an unhealthy pod comes to: stays as it is, is stopped, or is stopped for its rule to start it again. */
export const UNHEALTHY_ACTIONS = ['none', 'stop', 'restart'] as const
export type UnhealthyAction = (typeof UNHEALTHY_ACTIONS)[number]

/** What a launch says of it; null: the image's. */
export interface HealthRequest {
  /** No check, whatever the image has. */
  readonly disabled: boolean
  readonly probe: Probe | null
  readonly times: Readonly<Record<keyof HealthTimes, number | null>>
  readonly onUnhealthy: UnhealthyAction
}

/** Docker's. */
export const HEALTH_DEFAULTS: HealthTimes = {
  intervalMs: 30_000,
  timeoutMs: 30_000,
  startPeriodMs: 0,
  startIntervalMs: 5000,
  retries: 3,
}

const NAMES: Readonly<Record<keyof HealthTimes, string>> = {
  intervalMs: 'health interval',
  timeoutMs: 'health timeout',
  startPeriodMs: 'health start period',
  startIntervalMs: 'health start interval',
  retries: 'health retries',
}

const boundsOf = (what: keyof HealthTimes): readonly [number, number] => {
  if (what === 'retries') return [1, HEALTH_RETRIES_MAX]
  return [what === 'startPeriodMs' ? 0 : HEALTH_MS_MIN, HEALTH_MS_MAX]
}

/** @throws BadNoun */
export function parseHealthTime(what: keyof HealthTimes, input: unknown): number {
  const [least, most] = boundsOf(what)
  const isWhole = typeof input === 'number' && Number.isInteger(input)
  if (isWhole && input >= least && input <= most) return input
  const unit = what === 'retries' ? '' : ' ms'
  throw new BadNoun(NAMES[what], `must be ${least} to ${most}${unit}`)
}

/** @throws BadNoun */
export function parseHealthPort(input: unknown): number {
  const isPort = typeof input === 'number' && Number.isInteger(input)
  if (isPort && input >= 1 && input <= PORT_MAX) return input
  throw new BadNoun('health port', `must be 1 to ${PORT_MAX}`)
}

/** It becomes part of a request's first line: nothing in it may end that line or a part of it. @throws BadNoun */
export function parseHealthPath(input: unknown): string {
  const isPath =
    typeof input === 'string' && input.length <= PATH_CHARACTERS_MAX && /^\/[!-~]*$/u.test(input)
  if (isPath) return input
  throw new BadNoun(
    'health path',
    `must begin with / and be at most ${PATH_CHARACTERS_MAX} printable ASCII characters without spaces`,
  )
}

/** @throws BadNoun */
export function parseExecProbe(input: unknown): Probe {
  const args = parseArguments(input)
  if (args.join('').length <= COMMAND_CHARACTERS_MAX) return { kind: 'exec', args }
  throw new BadNoun(
    'health command',
    `must have at most ${COMMAND_CHARACTERS_MAX} characters with its arguments`,
  )
}
