/** /v1/tenants/{tenant}/pods/{pod}/kill. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import { parseSignal } from '../../policy/index.ts'
import { kill } from '../tasks/kill.ts'
import type { LaunchPorts } from '../tasks/launch.ts'
import { callOf, inTime } from './pod-control.ts'
import { closed, POD, POD_PARAMS, PROBLEMS } from './schemas.ts'
import { shown } from './shared.ts'

const tags = ['pods']
const killBody = Type.Object(
  {
    signal: Type.Optional(
      Type.String({
        maxLength: 16,
        description: 'Name or number, as in signal(7); KILL if left out',
      }),
    ),
  },
  closed,
)

export const killRoutes: (ports: LaunchPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.post(
      '/v1/tenants/:tenant/pods/:pod/kill',
      {
        schema: {
          tags,
          summary: 'Send a signal to a pod’s first process',
          params: POD_PARAMS,
          body: killBody,
          response: { 202: POD, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const call = await callOf(ports, request, request.params)
        const signal = parseSignal(request.body.signal ?? 'KILL')
        const pod = await inTime(reply, kill(ports, { ...call, signal }))
        return await reply.code(202).send(shown(ports, pod))
      },
    )
    done()
  }
