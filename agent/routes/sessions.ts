/** Sessions of a process in a pod, over a WebSocket. */
import type { FastifyPluginCallback, FastifyReply } from 'fastify'
import type { WebSocket } from 'ws'
import type { ExecDecision } from '../../policy/index.ts'
import { publicError } from '../errors.ts'
import { failure } from '../exec-channels.ts'
import { converse, finish, type Wanted } from '../exec-session.ts'
import { callerOf } from '../identity.ts'
import { admitExec, type ExecCall, type ExecPorts, exec } from '../tasks/exec.ts'
import { OpenAnswers } from './open-answers.ts'
import { originOf, scopeOf, startOf } from './shared.ts'
import { type PodRequest, type Upgrade, upgradeRoute } from './upgrade.ts'

/** What is asked for, and which channels. */
export interface Sought {
  readonly wish: ExecCall['wish']
  readonly wanted: Wanted
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

/** Everything up to the upgrade. */
async function admit<Query>(
  ports: ExecPorts,
  open: OpenAnswers,
  { request, reply }: { readonly request: PodRequest<Query>; readonly reply: FastifyReply },
  { wish, wanted }: Sought,
): Promise<Admitted> {
  const { params } = request
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

/** The route of one kind of session; `seek` reads its query. */
export function sessionRoute<Query>(
  ports: ExecPorts,
  {
    seek,
    ...route
  }: Pick<Upgrade<Query, Admitted>, 'name' | 'summary' | 'querystring'> & {
    readonly seek: (request: PodRequest<Query>) => Sought
  },
): FastifyPluginCallback {
  const open = new OpenAnswers()
  return upgradeRoute<Query, Admitted>({
    ...route,
    admit: async (request, reply) => await admit(ports, open, { request, reply }, seek(request)),
    serve: (socket, admitted) =>
      converseWith(ports, admitted, { socket, stopping: ports.execs.stopping }),
  })
}
