/** /v1/tenants/{tenant}/pods/{pod}/rename. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import { parsePodName } from '../../policy/index.ts'
import type { LaunchPorts } from '../tasks/launch.ts'
import { closed, POD, POD_PARAMS, PROBLEMS } from './schemas.ts'
import { scopeOf, shown, startOf } from './shared.ts'

const body = Type.Object({ name: Type.String({ maxLength: 63 }) }, closed)

export const renameRoutes: (ports: LaunchPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.post(
      '/v1/tenants/:tenant/pods/:pod/rename',
      {
        schema: {
          tags: ['pods'],
          summary: 'Give a pod another name; records know it by its ids alone',
          params: POD_PARAMS,
          body,
          response: { 200: POD, ...PROBLEMS },
        },
      },
      async (request) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const { id } = await startOf(ports.tenants, scope, request.params.pod)
        const pod = await ports.tenants.renamePod(scope, id, parsePodName(request.body.name))
        return shown(ports, pod)
      },
    )
    done()
  }
