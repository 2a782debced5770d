/** /v1/host/drain: no new pods, and the end of those that run. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import { callerOf } from '../identity.ts'
import {
  DRAIN_MS_DEFAULT,
  DRAIN_MS_MAX,
  type Drain,
  type DrainPorts,
  type DrainStatus,
} from '../tasks/drain.ts'
import { actorOf } from '../tasks/record-parts.ts'
import { closed, PROBLEMS } from './schemas.ts'
import { originOf } from './shared.ts'

const tags = ['host']
const count = Type.Integer({ minimum: 0 })
const instantOrNull = Type.Union([Type.String({ format: 'date-time' }), Type.Null()])
const answer = Type.Object(
  {
    draining: Type.Boolean(),
    since: instantOrNull,
    until: instantOrNull,
    by: Type.Union([Type.String(), Type.Null()]),
    done: Type.Boolean({ description: 'No pod is left, or the deadline is over' }),
    left: Type.Integer({ minimum: 0, description: 'Pods that have not ended' }),
    ended: count,
    killed: Type.Integer({ minimum: 0, description: 'Of those that ended' }),
    waiting: Type.Integer({ minimum: 0, description: 'Pods that are started again afterwards' }),
  },
  closed,
)
const body = Type.Object(
  {
    deadline_s: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: DRAIN_MS_MAX / 1000,
        description: 'Until pods that still run are killed; 600 when left out',
      }),
    ),
  },
  closed,
)

const NOT_DRAINING = {
  draining: false,
  since: null,
  until: null,
  by: null,
  done: false,
  left: 0,
  ended: 0,
  killed: 0,
  waiting: 0,
}

const viewOf = (status: DrainStatus | null) =>
  status === null
    ? NOT_DRAINING
    : {
        draining: true,
        since: new Date(status.sinceMs).toISOString(),
        until: new Date(status.untilMs).toISOString(),
        by: status.identity,
        done: status.reportedMs !== null,
        ...status.counts,
      }

export const drainRoutes: (
  ports: DrainPorts & { readonly drain: Drain },
) => FastifyPluginCallbackTypebox = (ports) => (app, _options, done) => {
  app.get(
    '/v1/host/drain',
    {
      schema: {
        tags,
        summary: 'Whether the host is drained, and how far',
        response: { 200: answer, ...PROBLEMS },
      },
    },
    async (request) => viewOf(await ports.drain.status(ports.tenants.operator(callerOf(request)))),
  )
  app.post(
    '/v1/host/drain',
    {
      schema: {
        tags,
        summary: 'Launch nothing any more and end what runs; again: with another deadline',
        body,
        response: { 202: answer, ...PROBLEMS },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request)
      const operator = ports.tenants.operator(caller)
      const { deadline_s: seconds } = request.body
      const deadlineMs = seconds === undefined ? DRAIN_MS_DEFAULT : seconds * 1000
      const actor = actorOf(caller, originOf(request))
      return await reply
        .code(202)
        .send(viewOf(await ports.drain.begin(operator, actor, deadlineMs)))
    },
  )
  app.delete(
    '/v1/host/drain',
    {
      schema: {
        tags,
        summary: 'Launch again, and start those again that waited for it',
        response: { 204: Type.Null(), ...PROBLEMS },
      },
    },
    async (request, reply) => {
      const caller = callerOf(request)
      const operator = ports.tenants.operator(caller)
      await ports.drain.end(operator, actorOf(caller, originOf(request)))
      return await reply.code(204).send(null)
    },
  )
  done()
}
