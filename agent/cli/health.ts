/** Options of `run` that say how a pod is asked whether it does its work; names and meanings are Docker's where it has them. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import { integer, UsageError } from './arguments.ts'

export interface HealthOptions {
  readonly healthCmd?: string
  readonly healthTcp?: number
  readonly healthHttp?: { readonly port: number; readonly path: string }
  readonly healthInterval?: number
  readonly healthTimeout?: number
  readonly healthStartPeriod?: number
  readonly healthStartInterval?: number
  readonly healthRetries?: number
  readonly onUnhealthy?: string
  /** false: --no-healthcheck */
  readonly healthcheck?: boolean
}

const UNITS: Readonly<Record<string, number>> = { h: 3_600_000, m: 60_000, s: 1000, ms: 1 }

/** Milliseconds of `90s`, `1m30s`, `500ms`. @throws InvalidArgumentError */
function span(text: string): number {
  const parts = [...text.matchAll(/(\d{1,7})(ms|h|m|s)/gu)]
  if (parts.length === 0 || parts.map(([part]) => part).join('') !== text) {
    throw new InvalidArgumentError('It must be as 30s, 1m30s or 500ms.')
  }
  return parts.reduce((sum, [, count, unit = '']) => sum + Number(count) * (UNITS[unit] ?? 0), 0)
}

/** @throws InvalidArgumentError */
function place(text: string): { readonly port: number; readonly path: string } {
  const [, port, path] = /^(\d{1,5})(\/.*)?$/u.exec(text) ?? []
  if (port === undefined) throw new InvalidArgumentError('It must be as 8080 or 8080/healthz.')
  return { port: Number(port), path: path ?? '/' }
}

/** The member of a launch; undefined: nothing was said. @throws UsageError */
export function healthOf(options: HealthOptions): object | undefined {
  const said = {
    command: options.healthCmd === undefined ? undefined : ['/bin/sh', '-c', options.healthCmd],
    tcp: options.healthTcp,
    http: options.healthHttp,
    interval_ms: options.healthInterval,
    timeout_ms: options.healthTimeout,
    start_period_ms: options.healthStartPeriod,
    start_interval_ms: options.healthStartInterval,
    retries: options.healthRetries,
    on_unhealthy: options.onUnhealthy,
  }
  const isSaid = Object.values(said).some((value) => value !== undefined)
  if (options.healthcheck !== false) return isSaid ? said : undefined
  if (isSaid) throw new UsageError('--no-healthcheck goes with no other option of health checks')
  return { disabled: true }
}

export const addHealthOptions = (run: Command): Command =>
  run
    .option('--health-cmd <command>', 'run by /bin/sh beside the app; healthy when it ends with 0')
    .option('--health-tcp <port>', 'port that takes a connection', integer)
    .option('--health-http <port[/path]>', 'answers with a status from 200 to 399', place)
    .option('--health-interval <time>', 'between two checks, 1s to 1h; 30s if left out', span)
    .option('--health-timeout <time>', 'for one check; 30s', span)
    .option('--health-start-period <time>', 'in which wrong answers do not count; 0s', span)
    .option('--health-start-interval <time>', 'between two checks in that time; 5s', span)
    .option('--health-retries <n>', 'wrong answers in a row that count, 1 to 100; 3', integer)
    .option('--no-healthcheck', 'none, whatever the image has')
    .addOption(
      new Option(
        '--on-unhealthy <action>',
        'restart needs a restart rule; none if left out',
      ).choices(['none', 'stop', 'restart']),
    )
