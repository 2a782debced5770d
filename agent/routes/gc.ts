/** /v1/gc: what nobody uses any more, taken away now, or only named. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import { callerOf } from '../identity.ts'
import { type Ages, type GcPorts, gc } from '../tasks/gc.ts'
import { actorOf } from '../tasks/record-parts.ts'
import { closed, PROBLEMS } from './schemas.ts'
import { originOf } from './shared.ts'

const seconds = (description: string) =>
  Type.Optional(Type.Integer({ minimum: 0, maximum: 315_360_000, description }))
const body = Type.Object(
  {
    dry_run: Type.Optional(Type.Boolean({ description: 'Say what would go, and take nothing' })),
    pods_older_than_s: seconds('Since they ended; as in agent.json when left out'),
    images_older_than_s: seconds('Since a launch used them; as in agent.json when left out'),
  },
  closed,
)
const count = Type.Integer({ minimum: 0 })
const answer = Type.Object(
  {
    dry_run: Type.Boolean(),
    pods: Type.Array(
      Type.Object(
        {
          tenant: Type.String(),
          launch: Type.String(),
          ended: Type.String({ format: 'date-time' }),
        },
        closed,
      ),
    ),
    images: Type.Array(Type.Object({ tenant: Type.String(), files: count, bytes: count }, closed)),
  },
  closed,
)

export const gcRoutes: (ports: GcPorts & { readonly ages: Ages }) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.post(
      '/v1/gc',
      {
        schema: {
          tags: ['host'],
          summary: 'Remove pods that ended long ago and images that nobody used for long',
          body,
          response: { 200: answer, ...PROBLEMS },
        },
      },
      async (request) => {
        const caller = callerOf(request)
        ports.tenants.operator(caller)
        const { dry_run: dryRun = false, pods_older_than_s: pods } = request.body
        const { images_older_than_s: images } = request.body
        const ages = {
          podsMs: pods === undefined ? ports.ages.podsMs : pods * 1000,
          imagesMs: images === undefined ? ports.ages.imagesMs : images * 1000,
        }
        const actor = actorOf(caller, originOf(request))
        const report = await gc(ports, { ages, dryRun, actor })
        return {
          dry_run: dryRun,
          pods: report.pods.map(({ scope, pod, endedMs }) => ({
            tenant: scope.tenant,
            launch: pod,
            ended: new Date(endedMs).toISOString(),
          })),
          images: report.images.map(({ tenant, bytes, files }) => ({ tenant, bytes, files })),
        }
      },
    )
    done()
  }
