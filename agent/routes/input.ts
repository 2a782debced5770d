/** /v1/tenants/{tenant}/pods/{pod}/input: the standard input of a pod, channel 0 of the protocol that exec speaks. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import type { PodStream } from '../../native/pod-stream.ts'
import { ApiError } from '../errors.ts'
import { feed } from '../input-session.ts'
import type { ChangeCall } from '../tasks/changes.ts'
import { InputHolders, noteInputEnd, openInput } from '../tasks/input.ts'
import type { LaunchPorts } from '../tasks/launch.ts'
import type { OpenAnswers } from './open-answers.ts'
import { callOf } from './pod-control.ts'
import { POD_PARAMS, PROBLEMS } from './schemas.ts'
import { KEEP_ALIVE_MS, refuseProtocol } from './sessions.ts'

interface Admitted {
  readonly call: ChangeCall
  readonly stream: PodStream
}

export const inputRoutes: (ports: LaunchPorts, open: OpenAnswers) => FastifyPluginCallbackTypebox =
  (ports, open) => (app, _options, done) => {
    const holders = new InputHolders()
    const admitted = new WeakMap<object, Admitted>()
    app.route<{ Params: { tenant: string; pod: string } }>({
      method: 'GET',
      url: '/v1/tenants/:tenant/pods/:pod/input',
      schema: {
        tags: ['pods'],
        summary:
          'Feed the standard input of a running pod: a WebSocket of Kubernetes’ channel protocol',
        params: POD_PARAMS,
        response: { 101: Type.Null(), ...PROBLEMS },
      },
      preHandler: async (request, reply) => {
        refuseProtocol(request)
        const call = await callOf(ports, request, request.params)
        const release = holders.take(call.pod)
        try {
          const gone = open.begin(call.scope.tenant, reply.raw)
          const stream = await openInput(ports, call)
          admitted.set(request.raw, { call, stream })
          // With the connection, whatever becomes of it; of one that is gone already nobody says so again.
          if (gone.aborted) release()
          else gone.addEventListener('abort', release, { once: true })
        } catch (error) {
          release()
          throw error
        }
      },
      handler: () => {
        throw new ApiError('EXEC_PROTOCOL', 'This is a WebSocket.')
      },
      wsHandler: async (socket, request) => {
        socket.pause()
        request.raw.socket.setKeepAlive(true, KEEP_ALIVE_MS)
        const found = admitted.get(request.raw)
        if (found === undefined) {
          socket.terminate()
          return
        }
        await feed(socket, found.stream, {
          stopping: ports.execs.stopping,
          ended: async () => {
            try {
              await noteInputEnd(ports, found.call)
            } catch (error) {
              // It has just ended itself, or the store takes nothing: the next one who attaches is not told.
              ports.log.warn({ err: error, pod: found.call.pod }, 'an end of input was not noted')
            }
          },
        })
      },
    })
    done()
  }
