/** /v1/host/exceptions: what operators set aside of the host's findings, and until when. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import { callerOf } from '../identity.ts'
import { addException, type ExceptionPorts, removeException } from '../tasks/exceptions.ts'
import { actorOf } from '../tasks/record-parts.ts'
import { closed, EXCEPTION, EXCEPTIONS, PROBLEMS } from './schemas.ts'
import { originOf } from './shared.ts'
import { exceptionView } from './views.ts'

const tags = ['host']
const body = Type.Object(
  {
    finding: Type.String({ maxLength: 256, description: 'Its id, as doctor shows it' }),
    reason: Type.String({ maxLength: 500, description: 'Why it can be put up with until then' }),
    until: Type.String({ maxLength: 64, description: 'RFC 3339, within 90 days' }),
  },
  closed,
)
const params = Type.Object({ finding: Type.String({ maxLength: 256 }) }, closed)

export const hostRoutes: (ports: ExceptionPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.get(
      '/v1/host/exceptions',
      {
        schema: {
          tags,
          summary: 'Exceptions for findings of this host, those whose time is over too',
          response: { 200: EXCEPTIONS, ...PROBLEMS },
        },
      },
      async (request) => {
        ports.tenants.operator(callerOf(request))
        const all = await ports.tenants.hostExceptions()
        return { exceptions: all.map((one) => exceptionView(one, ports.now())) }
      },
    )
    app.post(
      '/v1/host/exceptions',
      {
        schema: {
          tags,
          summary:
            'Set a severe finding aside until a day, in place of an earlier exception for it',
          body,
          response: { 201: EXCEPTION, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const caller = callerOf(request)
        const operator = ports.tenants.operator(caller)
        const actor = actorOf(caller, originOf(request))
        const made = await addException(ports, operator, actor, request.body)
        return await reply.code(201).send(exceptionView(made, ports.now()))
      },
    )
    app.delete(
      '/v1/host/exceptions/:finding',
      {
        schema: {
          tags,
          summary: 'Take an exception back, at once',
          params,
          response: { 204: Type.Null(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const caller = callerOf(request)
        const operator = ports.tenants.operator(caller)
        const actor = actorOf(caller, originOf(request))
        await removeException(ports, operator, actor, request.params.finding)
        return await reply.code(204).send(null)
      },
    )
    done()
  }
