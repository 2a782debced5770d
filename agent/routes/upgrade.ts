/**
 * A route of a pod's that ends in a WebSocket of Kubernetes' channel protocol. Whatever can be refused is refused with an
 * ordinary answer, before the upgrade.
 */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type TSchema, Type } from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback, FastifyReply, FastifyRequest } from 'fastify'
import type { WebSocket } from 'ws'
import { ApiError } from '../errors.ts'
import { PROTOCOLS } from '../exec-channels.ts'
import { POD_PARAMS, PROBLEMS } from './schemas.ts'

/** Of the connection, by its kernel. */
const KEEP_ALIVE_MS = 30_000

export type PodRequest<Query> = FastifyRequest<{
  Params: { tenant: string; pod: string }
  Querystring: Query
}>

export interface Upgrade<Query, Admitted extends object> {
  /** Behind the pod's own path. */
  readonly name: string
  readonly summary: string
  readonly querystring?: TSchema
  /** Everything up to the upgrade. What it throws is the answer. */
  readonly admit: (request: PodRequest<Query>, reply: FastifyReply) => Promise<Admitted>
  /** The socket is paused when it comes, so that nothing a caller said early is lost. */
  readonly serve: (socket: WebSocket, admitted: Admitted) => Promise<void>
}

/** @throws ApiError EXEC_PROTOCOL */
function refuseProtocol({ headers, ws }: FastifyRequest): void {
  const names = (headers['sec-websocket-protocol'] ?? '').split(',')
  const offered = new Set(names.map((one) => one.trim()))
  if (!ws || !PROTOCOLS.some((protocol) => offered.has(protocol))) {
    const sentence = `This is a WebSocket: send an Upgrade, with ${PROTOCOLS.join(' or ')} in Sec-WebSocket-Protocol.`
    throw new ApiError('EXEC_PROTOCOL', sentence)
  }
}

export const upgradeRoute =
  <Query, Admitted extends object>({
    name,
    summary,
    querystring,
    admit,
    serve,
  }: Upgrade<Query, Admitted>): FastifyPluginCallback =>
  (app, _options, done) => {
    const admitted = new WeakMap<object, Admitted>()
    app.route<{ Params: { tenant: string; pod: string }; Querystring: Query }>({
      method: 'GET',
      url: `/v1/tenants/:tenant/pods/:pod/${name}`,
      schema: {
        tags: ['pods'],
        summary,
        params: POD_PARAMS,
        ...(querystring === undefined ? {} : { querystring }),
        response: { 101: Type.Null(), ...PROBLEMS },
      },
      preHandler: async (request, reply) => {
        refuseProtocol(request)
        admitted.set(request.raw, await admit(request, reply))
      },
      handler: () => {
        throw new ApiError('EXEC_PROTOCOL', 'This is a WebSocket.')
      },
      wsHandler: async (socket, request) => {
        socket.pause()
        request.raw.socket.setKeepAlive(true, KEEP_ALIVE_MS)
        const found = admitted.get(request.raw)
        if (found === undefined) socket.terminate()
        else await serve(socket, found)
      },
    })
    done()
  }
