/** /v1/tenants/{tenant}/pods/{pod}/exec: one more process in a pod, so that clients of Kubernetes work. */
import { Type } from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback } from 'fastify'
import { EXEC_REQUEST_BYTES_MAX, type ExecWish, execRequest } from '../../native/exec-request.ts'
import {
  BadNoun,
  parseArguments,
  parseEnvironment,
  parseUser,
  parseWorkingDirectory,
} from '../../policy/index.ts'
import { ApiError } from '../errors.ts'
import type { ExecPorts } from '../tasks/exec.ts'
import { closed } from './schemas.ts'
import { type Sought, sessionRoute } from './sessions.ts'

const several = (description: string) =>
  Type.Optional(Type.Union([Type.String(), Type.Array(Type.String())], { description }))
const flag = Type.Optional(Type.String({ pattern: '^(?:[Tt]rue|[Ff]alse|1|0)$' }))
const query = Type.Object(
  {
    command: several('Program and arguments, one by one'),
    env: several('KEY=value, on top of the app’s'),
    user: Type.Optional(Type.String({ description: 'In place of the app’s' })),
    cwd: Type.Optional(Type.String({ description: 'In place of the app’s' })),
    container: Type.Optional(Type.String({ description: 'Only `app`: a pod has one' })),
    stdin: flag,
    stdout: flag,
    stderr: flag,
    tty: flag,
  },
  closed,
)

interface Query {
  readonly command?: string | string[]
  readonly env?: string | string[]
  readonly user?: string
  readonly cwd?: string
  readonly container?: string
  readonly stdin?: string
  readonly stdout?: string
  readonly stderr?: string
  readonly tty?: string
}

const listOf = (value: string | string[] | undefined): readonly string[] =>
  typeof value === 'string' ? [value] : (value ?? [])
/** Also as the Python client of Kubernetes writes it. */
const isOn = (value: string | undefined): boolean => /^(?:[Tt]rue|1)$/u.test(value ?? '')
/** Until the first resize. */
const SIZE = { rows: 24, columns: 80 } as const

function wishOf(asked: Query): ExecWish {
  const env = listOf(asked.env)
  const tty = isOn(asked.tty)
  const term = tty && !env.some((entry) => entry.startsWith('TERM=')) ? ['TERM=xterm'] : []
  const wish = {
    app: null,
    args: parseArguments(listOf(asked.command)),
    env: parseEnvironment([...term, ...env]),
    cwd: asked.cwd === undefined ? null : parseWorkingDirectory(asked.cwd),
    user: asked.user === undefined ? null : parseUser(asked.user),
    terminal: tty ? SIZE : null,
  }
  if (execRequest(wish).bytes.length > EXEC_REQUEST_BYTES_MAX) {
    throw new BadNoun(
      'command',
      `must be, with its environment, under ${EXEC_REQUEST_BYTES_MAX} bytes`,
    )
  }
  return wish
}

function seek(asked: Query): Sought {
  if (asked.container !== undefined && asked.container !== 'app') {
    throw new ApiError('NOT_FOUND', 'A pod has one container, app.')
  }
  const terminal = isOn(asked.tty)
  const wanted = {
    stdin: isOn(asked.stdin),
    stdout: isOn(asked.stdout),
    stderr: isOn(asked.stderr) && !terminal,
    terminal,
  }
  return { wish: wishOf(asked), wanted }
}

export const execRoutes = (ports: ExecPorts): FastifyPluginCallback =>
  sessionRoute<Query>(ports, {
    name: 'exec',
    summary: 'Execute a program in a running pod: a WebSocket of Kubernetes’ channel protocol',
    querystring: query,
    seek: ({ query: asked }) => seek(asked),
  })
