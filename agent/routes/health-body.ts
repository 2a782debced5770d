/** What a launch says of its pod's health check, from its wire form to a HealthRequest. */
import { type Static, type TUnsafe, Type } from '@fastify/type-provider-typebox'
import {
  BadNoun,
  type HealthRequest,
  type HealthTimes,
  type Probe,
  parseExecProbe,
  parseHealthPath,
  parseHealthPort,
  parseHealthTime,
  type RestartRule,
  type UnhealthyAction,
} from '../../policy/index.ts'
import { closed } from './schemas.ts'

const time = (description: string) => Type.Optional(Type.Integer({ description }))

const members = {
  disabled: Type.Optional(
    Type.Boolean({ description: 'true: no check, whatever the image has; nothing else then' }),
  ),
  command: Type.Optional(
    Type.Array(Type.String({ maxLength: 8192 }), {
      maxItems: 256,
      description: 'Program and arguments, run beside the app; healthy is who ends with 0',
    }),
  ),
  tcp: Type.Optional(Type.Integer({ description: 'Port of the pod that takes a connection' })),
  http: Type.Optional(
    Type.Object(
      { port: Type.Integer(), path: Type.String({ maxLength: 1024 }) },
      { ...closed, description: 'Answers a GET with a status from 200 to 399' },
    ),
  ),
  interval_ms: time('From one check to the next, 1000 to 3,600,000; 30,000 if left out'),
  timeout_ms: time('For one check, likewise'),
  start_period_ms: time('In which wrong answers do not count until there was a right one; 0'),
  start_interval_ms: time('From one check to the next in that time; 5000'),
  retries: time('Wrong answers in a row that make it unhealthy, 1 to 100; 3'),
  on_unhealthy: Type.Optional(
    Type.Union([Type.Literal('none'), Type.Literal('stop'), Type.Literal('restart')], {
      description: 'restart stops it too, and the restart rule, which it needs, starts it again',
    }),
  ),
}

const shape = Type.Object(members, {
  ...closed,
  description: 'Over the image’s HEALTHCHECK, member by member',
})
/** The wire form. */
export type HealthBody = {
  disabled?: boolean
  command?: string[]
  tcp?: number
  http?: { port: number; path: string }
  interval_ms?: number
  timeout_ms?: number
  start_period_ms?: number
  start_interval_ms?: number
  retries?: number
  on_unhealthy?: UnhealthyAction
}
/** Compiles only while schema and interface say the same. */
export const HEALTH_BODY: TUnsafe<HealthBody> = Type.Unsafe<Static<typeof shape>>(shape)

function probeOf({ command, tcp, http }: HealthBody): Probe | null {
  if ([command, tcp, http].filter((one) => one !== undefined).length > 1) {
    throw new BadNoun('health check', 'must be one of command, tcp and http')
  }
  if (command !== undefined) return parseExecProbe(command)
  if (tcp !== undefined) return { kind: 'tcp', port: parseHealthPort(tcp) }
  if (http === undefined) return null
  return { kind: 'http', port: parseHealthPort(http.port), path: parseHealthPath(http.path) }
}

const WIRE = {
  intervalMs: 'interval_ms',
  timeoutMs: 'timeout_ms',
  startPeriodMs: 'start_period_ms',
  startIntervalMs: 'start_interval_ms',
  retries: 'retries',
} as const

/**
 * @param rule of the pod; null: nothing starts it again
 * @throws BadNoun
 */
export function parseHealth(body: HealthBody, rule: RestartRule | null): HealthRequest {
  const { disabled = false, on_unhealthy: onUnhealthy = 'none' } = body
  if (disabled && Object.keys(body).length > 1) {
    throw new BadNoun('health', 'must say nothing else when it is disabled')
  }
  if (onUnhealthy === 'restart' && rule === null) {
    throw new BadNoun('on_unhealthy', 'can be restart only with a restart rule beside it')
  }
  const of = (what: keyof HealthTimes): number | null => {
    const value = body[WIRE[what]]
    return value === undefined ? null : parseHealthTime(what, value)
  }
  return {
    disabled,
    probe: probeOf(body),
    times: {
      intervalMs: of('intervalMs'),
      timeoutMs: of('timeoutMs'),
      startPeriodMs: of('startPeriodMs'),
      startIntervalMs: of('startIntervalMs'),
      retries: of('retries'),
    },
    onUnhealthy,
  }
}
