/** /v1/tenants/{tenant}/tokens: operators issue access tokens and revoke them. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import { type NewToken, parseIdentityName } from '../../tenants/index.ts'
import { notFound } from '../errors.ts'
import { callerOf } from '../identity.ts'
import type { LiveTokens } from '../live-tokens.ts'
import type { Ports } from '../tasks/ports.ts'
import { actorOf } from '../tasks/record-parts.ts'
import type { Watch } from '../tasks/watch.ts'
import { closed, PROBLEMS, TOKEN } from './schemas.ts'
import { originOf, scopeOf } from './shared.ts'

interface TokenPorts extends Ports {
  readonly watch: Watch
  readonly live: LiveTokens
}

const tags = ['tenants']
const params = Type.Object({ tenant: Type.String({ maxLength: 64 }) }, closed)
const tokenBody = Type.Object(
  {
    name: Type.String({ maxLength: 63, description: 'Of the identity: ci, alice' }),
    ttl_s: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
  },
  closed,
)

const issuedRecord = (token: NewToken, tenant: string, actor: ReturnType<typeof actorOf>) =>
  ({
    type: 'token.issued',
    tenant,
    actor,
    token: {
      jti: token.jti,
      sub: token.subject,
      scope: ['tenant'],
      expires: new Date(token.expiresMs).toISOString(),
      key: 'agent',
    },
  }) as const

export const tokenRoutes: (ports: TokenPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.post(
      '/v1/tenants/:tenant/tokens',
      {
        schema: {
          tags,
          summary: 'Issue an access token; it is shown once',
          params,
          body: tokenBody,
          response: { 201: TOKEN, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const operator = ports.tenants.operator(callerOf(request))
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const { name, ttl_s: seconds } = request.body
        const lifetimeMs = seconds === undefined ? null : seconds * 1000
        const token = await ports.tenants.issueToken(operator, scope, {
          name: parseIdentityName(name),
          lifetimeMs,
        })
        const actor = actorOf(callerOf(request), originOf(request))
        await ports.audit.append(issuedRecord(token, scope.tenant, actor))
        return await reply.code(201).send({
          token: token.token,
          jti: token.jti,
          subject: token.subject,
          expires: new Date(token.expiresMs).toISOString(),
        })
      },
    )
    app.delete(
      '/v1/tenants/:tenant/tokens/:jti',
      {
        schema: {
          tags,
          summary: 'Revoke an access token, at once',
          params: Type.Object(
            { tenant: Type.String({ maxLength: 64 }), jti: Type.String({ maxLength: 64 }) },
            closed,
          ),
          response: { 204: Type.Null(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        ports.tenants.operator(callerOf(request))
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const { jti } = request.params
        // Whoever mistypes one must not believe that it is revoked.
        const issued = await ports.tenants.listTokens(scope)
        if (!issued.some((token) => token.jti === jti)) throw notFound()
        const wasLive = await ports.tenants.revokeToken(scope, jti)
        ports.live.end(jti)
        if (wasLive) {
          // Afterwards, and it stands without: revoking must not depend on a disk.
          const actor = actorOf(callerOf(request), originOf(request))
          await ports.watch.note({
            type: 'token.revoked',
            tenant: scope.tenant,
            actor,
            token: { jti },
          })
        }
        return await reply.code(204).send(null)
      },
    )
    done()
  }
