/** The health check of a pod: the image's HEALTHCHECK with the request laid over it, parsed as one. */
import type { ImageConfig, ImageHealthcheck, LaunchRequest } from './facts.ts'
import { BadNoun } from './nouns/brand.ts'
import {
  HEALTH_DEFAULTS,
  type HealthTimes,
  type Probe,
  parseExecProbe,
  parseHealthTime,
} from './nouns/health.ts'
import type { PlannedHealth } from './plan.ts'
import { Refusal } from './refusal.ts'

const NS_IN_MS = 1_000_000
/** Docker's, for a command of an image that names no shell. */
const SHELL = ['/bin/sh', '-c']

/** What the image asks; null: nothing. @throws BadNoun */
function imageProbe(healthcheck: ImageHealthcheck): Probe | null {
  const [kind = 'NONE', ...words] = healthcheck.test
  if (kind === 'NONE') return null
  if (kind === 'CMD') return parseExecProbe(words)
  if (kind === 'CMD-SHELL' && words.length === 1) {
    const shell = healthcheck.shell.length === 0 ? SHELL : healthcheck.shell
    return parseExecProbe([...shell, ...words])
  }
  throw new BadNoun('HEALTHCHECK', 'must be NONE, CMD and arguments, or CMD-SHELL and one command')
}

/** Of an image, which counts nanoseconds; 0 is its way to say nothing. */
function imageTime({ healthcheck }: ImageConfig, what: keyof HealthTimes): number | null {
  const value = healthcheck?.times[what] ?? 0
  if (value === 0) return null
  return what === 'retries' ? value : Math.trunc(value / NS_IN_MS)
}

/** @throws BadNoun */
function timesOf(config: ImageConfig, asked: LaunchRequest['health']): HealthTimes {
  const time = (what: keyof HealthTimes): number => {
    const wanted = asked?.times[what] ?? imageTime(config, what)
    return wanted === null ? HEALTH_DEFAULTS[what] : parseHealthTime(what, wanted)
  }
  return {
    intervalMs: time('intervalMs'),
    timeoutMs: time('timeoutMs'),
    startPeriodMs: time('startPeriodMs'),
    startIntervalMs: time('startIntervalMs'),
    retries: time('retries'),
  }
}

/** @throws BadNoun */
function healthOf(config: ImageConfig, asked: LaunchRequest['health']): PlannedHealth | null {
  const { healthcheck } = config
  const probe = asked?.probe ?? (healthcheck === null ? null : imageProbe(healthcheck))
  if (probe === null) return null
  return { probe, ...timesOf(config, asked), onUnhealthy: asked?.onUnhealthy ?? 'none' }
}

/** null: the pod is not asked. @throws Refusal IMAGE_CONFIG_INVALID, HEALTHCHECK_MISSING */
export function planHealth(
  config: ImageConfig,
  asked: LaunchRequest['health'],
): PlannedHealth | null {
  if (asked?.disabled === true) return null
  try {
    const health = healthOf(config, asked)
    if (health !== null || asked === null) return health
  } catch (error) {
    if (!(error instanceof BadNoun)) throw error
    throw new Refusal(
      'IMAGE_CONFIG_INVALID',
      `The image's health check cannot be used: ${error.message}. Ask for another, or for none.`,
      { member: error.noun },
    )
  }
  throw new Refusal(
    'HEALTHCHECK_MISSING',
    'The image has no health check, and the launch says how often and what for but not what to ask. Name a command, a port or a path.',
    {},
  )
}
