/** /v1/tenants/{tenant}/pods/{pod}/debug: at which stage a launch is or ended, and what to do. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import { callerOf } from '../identity.ts'
import { type DebugPorts, debug } from '../tasks/debug.ts'
import { STAGES } from '../tasks/debug-steps.ts'
import { closed, POD_PARAMS, PROBLEMS } from './schemas.ts'
import { chosenStart, scopeOf } from './shared.ts'

const text = Type.String()
const orNull = Type.Union([Type.String(), Type.Null()])
const answer = Type.Object(
  {
    pod: text,
    launch: text,
    attempt: Type.Integer({ minimum: 0 }),
    state: text,
    ended: Type.Boolean(),
    record: Type.Union([Type.Integer(), Type.Null()]),
    stage: Type.Union(STAGES.map((stage) => Type.Literal(stage))),
    code: Type.Union([Type.String(), Type.Null()], { description: 'null: nothing is wrong' }),
    message: orNull,
    facts: Type.Record(Type.String(), Type.Unknown()),
    who: Type.Union([Type.Literal('tenant'), Type.Literal('provider'), Type.Null()], {
      description: 'Who can mend it',
    }),
    next: Type.String({ description: 'What to do' }),
    boot: Type.Array(Type.String(), {
      description: 'The last 50 lines of the guest’s console and the VMM’s notes',
    }),
  },
  closed,
)

export const debugRoutes: (ports: DebugPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.get(
      '/v1/tenants/:tenant/pods/:pod/debug',
      {
        schema: {
          tags: ['pods'],
          summary: 'At which stage a pod’s launch is or ended, why, and what to do',
          params: POD_PARAMS,
          querystring: Type.Object(
            {
              attempt: Type.Optional(
                Type.String({ pattern: '^[0-9]{1,9}$', description: 'The newest start without' }),
              ),
            },
            closed,
          ),
          response: { 200: answer, ...PROBLEMS },
        },
      },
      async (request) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const pod = await chosenStart(ports.tenants, scope, {
          name: request.params.pod,
          attempt: request.query.attempt,
        })
        const whole = callerOf(request).kind === 'operator'
        return await debug(ports, pod, { whole })
      },
    )
    done()
  }
