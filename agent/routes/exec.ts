/**
 * /v1/tenants/{tenant}/pods/{pod}/exec: one more process in a pod, over a WebSocket that speaks Kubernetes' channel
 * protocol, so that its clients work. Whatever can be refused is refused with an ordinary answer, before the upgrade.
 */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */

import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { EXEC_REQUEST_BYTES_MAX, type ExecWish, execRequest } from '../../native/exec-request.ts'
import {
  BadNoun,
  type ExecDecision,
  parseArguments,
  parseEnvironment,
  parseUser,
  parseWorkingDirectory,
} from '../../policy/index.ts'
import { ApiError, publicError } from '../errors.ts'
import { failure, PROTOCOLS } from '../exec-channels.ts'
import { converse, finish, type Wanted } from '../exec-session.ts'
import { callerOf } from '../identity.ts'
import { admitExec, type ExecCall, type ExecPorts, exec } from '../tasks/exec.ts'
import { OpenAnswers } from './open-answers.ts'
import { closed, POD_PARAMS, PROBLEMS } from './schemas.ts'
import { originOf, scopeOf, startOf } from './shared.ts'

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
/** Of the connection, by its kernel. */
const KEEP_ALIVE_MS = 30_000
/** Until the first resize. */
const SIZE = { rows: 24, columns: 80 } as const

function wishOf(asked: Query): ExecWish {
  const env = listOf(asked.env)
  const tty = isOn(asked.tty)
  const term = tty && !env.some((entry) => entry.startsWith('TERM=')) ? ['TERM=xterm'] : []
  const wish = {
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

function refuseProtocol({ headers, ws }: FastifyRequest, { container }: Query): void {
  const names = (headers['sec-websocket-protocol'] ?? '').split(',')
  const offered = new Set(names.map((one) => one.trim()))
  if (!ws || !PROTOCOLS.some((protocol) => offered.has(protocol))) {
    const sentence = `This is a WebSocket: send an Upgrade, with ${PROTOCOLS.join(' or ')} in Sec-WebSocket-Protocol.`
    throw new ApiError('EXEC_PROTOCOL', sentence)
  }
  if (container !== undefined && container !== 'app') {
    throw new ApiError('NOT_FOUND', 'A pod has one container, app.')
  }
}

interface Admitted {
  readonly call: ExecCall
  readonly decision: ExecDecision
  readonly wanted: Wanted
  /** What was counted is given back. */
  readonly release: () => void
}

async function converseWith(
  ports: ExecPorts,
  { call, decision, wanted, release }: Admitted,
  { socket, stopping }: { readonly socket: WebSocket; readonly stopping: AbortSignal },
): Promise<void> {
  try {
    const executed = await exec(ports, call, decision)
    const { end, reason } = await converse(socket, executed.stream, wanted, stopping)
    await executed.ended(end, reason)
  } catch (error) {
    const told = publicError(error)
    finish(socket, failure(told.code, told.message))
  } finally {
    release()
  }
}

interface Asked {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly params: { readonly tenant: string; readonly pod: string }
  readonly query: Query
}

/** Everything up to the upgrade. */
async function admit(
  ports: ExecPorts,
  open: OpenAnswers,
  { request, reply, params, query: asked }: Asked,
): Promise<Admitted> {
  refuseProtocol(request, asked)
  const wish = wishOf(asked)
  const scope = await scopeOf(ports.tenants, request, params.tenant)
  const { id: pod } = await startOf(ports.tenants, scope, params.pod)
  const call: ExecCall = {
    scope,
    caller: callerOf(request),
    origin: originOf(request),
    pod,
    wish,
  }
  const terminal = isOn(asked.tty)
  const wanted = {
    stdin: isOn(asked.stdin),
    stdout: isOn(asked.stdout),
    stderr: isOn(asked.stderr) && !terminal,
    terminal,
  }
  const release = ports.execs.begin(call.scope.tenant)
  try {
    open.begin(call.scope.tenant, reply.raw).addEventListener('abort', release, { once: true })
    return { call, decision: await admitExec(ports, call), wanted, release }
  } catch (error) {
    release()
    throw error
  }
}

export const execRoutes: (ports: ExecPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    const open = new OpenAnswers()
    const admitted = new WeakMap<object, Admitted>()
    app.route<{ Params: { tenant: string; pod: string }; Querystring: Query }>({
      method: 'GET',
      url: '/v1/tenants/:tenant/pods/:pod/exec',
      schema: {
        tags: ['pods'],
        summary: 'Execute a program in a running pod: a WebSocket of Kubernetes’ channel protocol',
        params: POD_PARAMS,
        querystring: query,
        response: { 101: Type.Null(), ...PROBLEMS },
      },
      preHandler: async (request, reply) => {
        const { params, query: asked, raw } = request
        admitted.set(raw, await admit(ports, open, { request, reply, params, query: asked }))
      },
      handler: () => {
        throw new ApiError('EXEC_PROTOCOL', 'This is a WebSocket.')
      },
      wsHandler: async (socket, request) => {
        socket.pause()
        request.raw.socket.setKeepAlive(true, KEEP_ALIVE_MS)
        const found = admitted.get(request.raw)
        if (found === undefined) socket.terminate()
        else await converseWith(ports, found, { socket, stopping: ports.execs.stopping })
      },
    })
    done()
  }
