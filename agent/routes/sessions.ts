/**
 * Sessions of a process in a pod, over a WebSocket that speaks Kubernetes' channel protocol. Whatever can be refused is
 * refused with an ordinary answer, before the upgrade.
 */
import type { FastifyReply, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import type { ExecDecision } from '../../policy/index.ts'
import { ApiError, publicError } from '../errors.ts'
import { failure, PROTOCOLS } from '../exec-channels.ts'
import { converse, finish, type Wanted } from '../exec-session.ts'
import { callerOf } from '../identity.ts'
import { admitExec, type ExecCall, type ExecPorts, exec } from '../tasks/exec.ts'
import { OpenAnswers } from './open-answers.ts'
import { originOf, scopeOf, startOf } from './shared.ts'

/** Of the connection, by its kernel. */
export const KEEP_ALIVE_MS = 30_000

/** What is asked for, and which channels. */
export interface Sought {
  readonly wish: ExecCall['wish']
  readonly wanted: Wanted
}

/** @throws ApiError EXEC_PROTOCOL */
export function refuseProtocol({ headers, ws }: FastifyRequest): void {
  const names = (headers['sec-websocket-protocol'] ?? '').split(',')
  const offered = new Set(names.map((one) => one.trim()))
  if (!ws || !PROTOCOLS.some((protocol) => offered.has(protocol))) {
    const sentence = `This is a WebSocket: send an Upgrade, with ${PROTOCOLS.join(' or ')} in Sec-WebSocket-Protocol.`
    throw new ApiError('EXEC_PROTOCOL', sentence)
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

export interface Asked {
  readonly request: FastifyRequest
  readonly reply: FastifyReply
  readonly params: { readonly tenant: string; readonly pod: string }
}

/** Everything up to the upgrade. */
async function admit(
  ports: ExecPorts,
  open: OpenAnswers,
  { request, reply, params }: Asked,
  { wish, wanted }: Sought,
): Promise<Admitted> {
  const scope = await scopeOf(ports.tenants, request, params.tenant)
  const { id: pod } = await startOf(ports.tenants, scope, params.pod)
  const call: ExecCall = {
    scope,
    caller: callerOf(request),
    origin: originOf(request),
    pod,
    wish,
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

/** What a route of sessions is made of. */
export interface Sessions {
  /** Before the upgrade. `seek` reads the query once it is a WebSocket that is asked for. */
  readonly preHandler: (asked: Asked, seek: () => Sought) => Promise<void>
  readonly handler: () => never
  readonly wsHandler: (socket: WebSocket, request: FastifyRequest) => Promise<void>
}

export function sessions(ports: ExecPorts): Sessions {
  const open = new OpenAnswers()
  const admitted = new WeakMap<object, Admitted>()
  return {
    preHandler: async (asked, seek) => {
      refuseProtocol(asked.request)
      admitted.set(asked.request.raw, await admit(ports, open, asked, seek()))
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
  }
}
