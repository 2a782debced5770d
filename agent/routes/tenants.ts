/** /v1/tenants — tenants and their tokens. Operators change them; a tenant sees itself. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { createHash } from 'node:crypto'
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback } from 'fastify'
import { type Canonical, canonicalJson } from '../../policy/canonical.ts'
import { parseImageRule, parseTenantId, parseTrust } from '../../policy/index.ts'
import {
  DEFAULT_QUOTA_LIMITS,
  type NewToken,
  parseIdentityName,
  type QuotaLimits,
  type Tenant,
} from '../../tenants/index.ts'
import { notFound } from '../errors.ts'
import { callerOf } from '../identity.ts'
import type { Ports } from '../tasks/ports.ts'
import { actorOf } from '../tasks/record-parts.ts'
import type { Watch } from '../tasks/watch.ts'
import { closed, PROBLEMS, TENANT, TENANTS, TOKEN } from './schemas.ts'
import { limitOf, originOf, scopeOf, tenantIdOf } from './shared.ts'
import { tenantView } from './views.ts'

interface TenantPorts extends Ports {
  readonly watch: Watch
}

const tags = ['tenants']
const params = Type.Object({ tenant: Type.String({ maxLength: 64 }) }, closed)
const count = Type.Integer({ minimum: 0 })
const tenantBody = Type.Object(
  {
    id: Type.String({ maxLength: 64, description: 'a-z, 0-9 and -; begins with a letter' }),
    display: Type.Optional(Type.String({ maxLength: 200 })),
    trust: Type.Optional(
      Type.Union([Type.Literal('untrusted'), Type.Literal('verified'), Type.Literal('trusted')], {
        description: 'untrusted when left out',
      }),
    ),
    quotas: Type.Optional(Type.Object({ vcpus: count, memory_mib: count, pods: count }, closed)),
    image_rule: Type.Optional(Type.Unknown({ description: 'Which images, signed by whom' })),
  },
  closed,
)
const pageQuery = Type.Object(
  {
    limit: Type.Optional(Type.String({ pattern: '^[0-9]{1,4}$' })),
    cursor: Type.Optional(Type.String({ maxLength: 64 })),
  },
  closed,
)
const tokenBody = Type.Object(
  {
    name: Type.String({ maxLength: 63, description: 'Of the identity: ci, alice' }),
    ttl_s: Type.Optional(Type.Integer({ minimum: 1, maximum: 86_400 })),
  },
  closed,
)

const digestOf = (value: Canonical): string =>
  `sha256:${createHash('sha256').update(canonicalJson(value)).digest('hex')}`

/** The rule is read again from its text, by the one parser there is for it. */
const ruleText = (rule: unknown): string => JSON.stringify(rule)

const limits = (
  quotas: { vcpus: number; memory_mib: number; pods: number } | undefined,
): QuotaLimits =>
  quotas === undefined
    ? DEFAULT_QUOTA_LIMITS
    : { vcpus: quotas.vcpus, memoryMib: quotas.memory_mib, pods: quotas.pods }

const createdRecord = (tenant: Tenant, actor: ReturnType<typeof actorOf>) =>
  ({
    type: 'tenant.created',
    tenant: tenant.id,
    trust: tenant.trust,
    actor,
    image_rules: tenant.imageRule?.digest ?? digestOf(null),
    quota: digestOf({
      vcpus: tenant.quotas.vcpus.limit,
      memory_mib: tenant.quotas.memoryMib.limit,
      pods: tenant.quotas.pods.limit,
    }),
  }) as const

const tenants: (ports: Ports) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.post(
      '/v1/tenants',
      {
        schema: {
          tags,
          summary: 'Create a tenant',
          body: tenantBody,
          response: { 201: TENANT, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const { body } = request
        const operator = ports.tenants.operator(callerOf(request))
        // Not as in a path: a name that cannot be one is the caller's mistake, and said so.
        const id = parseTenantId(body.id)
        const trust = parseTrust(body.trust ?? 'untrusted')
        const display = body.display ?? id
        const rule =
          body.image_rule === undefined ? null : parseImageRule(ruleText(body.image_rule))
        // Asked first: a tenant that exists and is on no record would be worse than none.
        if (ports.audit.unavailable !== null) throw ports.audit.unavailable
        await ports.tenants.createTenant(operator, {
          id,
          display,
          trust,
          quotas: limits(body.quotas),
        })
        if (rule !== null) await ports.tenants.setImageRule(operator, id, rule.text)
        const scope = await scopeOf(ports.tenants, request, id)
        const tenant = await ports.tenants.getTenant(scope)
        await ports.audit.append(
          createdRecord(tenant, actorOf(callerOf(request), originOf(request))),
        )
        return await reply.code(201).send(tenantView(tenant))
      },
    )
    app.get(
      '/v1/tenants',
      {
        schema: {
          tags,
          summary: 'List tenants',
          querystring: pageQuery,
          response: { 200: TENANTS, ...PROBLEMS },
        },
      },
      async (request) => {
        const operator = ports.tenants.operator(callerOf(request))
        const limit = limitOf(request.query.limit)
        const { cursor } = request.query
        const after = cursor === undefined ? null : tenantIdOf(cursor)
        const found = await ports.tenants.listTenants(operator, { limit, cursor: after })
        const next = found.length === limit ? (found.at(-1)?.id ?? null) : null
        return { tenants: found.map(tenantView), next }
      },
    )
    app.get(
      '/v1/tenants/:tenant',
      { schema: { tags, summary: 'One tenant', params, response: { 200: TENANT, ...PROBLEMS } } },
      async (request) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        return tenantView(await ports.tenants.getTenant(scope))
      },
    )
    done()
  }

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

const tokens: (ports: TenantPorts) => FastifyPluginCallbackTypebox =
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
        if (await ports.tenants.revokeToken(scope, jti)) {
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

export const tenantRoutes = (ports: TenantPorts): readonly FastifyPluginCallback[] => [
  tenants(ports),
  tokens(ports),
]
