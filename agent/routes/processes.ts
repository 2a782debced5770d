/** /v1/tenants/{tenant}/pods/{pod}/processes: what runs in a pod, in the pod's own words. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import type { LaunchPorts } from '../tasks/launch.ts'
import { processes } from '../tasks/processes.ts'
import { callOf, inTime } from './pod-control.ts'
import { closed, POD_PARAMS, PROBLEMS } from './schemas.ts'

const count = Type.Integer({ minimum: 0 })
const PROCESS = Type.Object(
  {
    pid: count,
    ppid: count,
    uid: count,
    user: Type.Union([Type.String(), Type.Null()], { description: 'By the image’s passwd' }),
    state: Type.String({ description: 'As in proc(5): R, S, D, Z, T and the like' }),
    threads: count,
    cpu_us: count,
    memory_bytes: Type.Integer({ minimum: 0, description: 'Resident' }),
    command: Type.String({ description: 'Plain ASCII, at most 512 characters' }),
  },
  closed,
)

export const processRoutes: (ports: LaunchPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.get(
      '/v1/tenants/:tenant/pods/:pod/processes',
      {
        schema: {
          tags: ['pods'],
          summary: 'The processes of a running pod, at most 4096',
          params: POD_PARAMS,
          response: {
            200: Type.Object({ processes: Type.Array(PROCESS) }, closed),
            ...PROBLEMS,
          },
        },
      },
      async (request, reply) => {
        const call = await callOf(ports, request, request.params)
        return { processes: [...(await inTime(reply, processes(ports, call)))] }
      },
    )
    done()
  }
