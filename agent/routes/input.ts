/** /v1/tenants/{tenant}/pods/{pod}/input: the standard input of a pod, channel 0 of the protocol that exec speaks. */
import type { FastifyPluginCallback } from 'fastify'
import type { PodStream } from '../../native/pod-stream.ts'
import { feed } from '../input-session.ts'
import type { ChangeCall } from '../tasks/changes.ts'
import { InputHolders, noteInputEnd, openInput } from '../tasks/input.ts'
import type { LaunchPorts } from '../tasks/launch.ts'
import type { OpenAnswers } from './open-answers.ts'
import { callOf } from './pod-control.ts'
import { upgradeRoute } from './upgrade.ts'

interface Admitted {
  readonly call: ChangeCall
  readonly stream: PodStream
}

export function inputRoutes(ports: LaunchPorts, open: OpenAnswers): FastifyPluginCallback {
  const holders = new InputHolders()
  return upgradeRoute<unknown, Admitted>({
    name: 'input',
    summary:
      'Feed the standard input of a running pod: a WebSocket of Kubernetes’ channel protocol',
    admit: async (request, reply) => {
      const call = await callOf(ports, request, request.params)
      const release = holders.take(call.pod)
      try {
        const gone = open.begin(call.scope.tenant, reply.raw)
        const stream = await openInput(ports, call)
        // With the connection, whatever becomes of it; of one that is gone already nobody says so again.
        if (gone.aborted) release()
        else gone.addEventListener('abort', release, { once: true })
        return { call, stream }
      } catch (error) {
        release()
        throw error
      }
    },
    serve: (socket, { call, stream }) =>
      feed(socket, stream, {
        stopping: ports.execs.stopping,
        ended: async () => {
          try {
            await noteInputEnd(ports, call)
          } catch (error) {
            // It has just ended itself, or the store takes nothing: the next one who attaches is not told.
            ports.log.warn({ err: error, pod: call.pod }, 'an end of input was not noted')
          }
        },
      }),
  })
}
