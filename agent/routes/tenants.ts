/** /v1/tenants: operators make and change tenants; a tenant sees itself. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { createHash } from 'node:crypto'
import {
  type FastifyPluginCallbackTypebox,
  type Static,
  Type,
} from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback, FastifyRequest } from 'fastify'
import { type Canonical, canonicalJson } from '../../policy/canonical.ts'
import {
  EGRESS_MAX,
  EGRESS_WORD_MAX,
  egressWords,
  PORT_WORD_MAX,
  PORTS_MAX,
  parseEgress,
  parseImageRule,
  parsePortRanges,
  parseTenantId,
  parseTrust,
  portRangeWords,
} from '../../policy/index.ts'
import { DEFAULT_QUOTA_LIMITS, type Tenant } from '../../tenants/index.ts'
import { callerOf } from '../identity.ts'
import { type DeletePorts, deleteTenant } from '../tasks/delete-tenant.ts'
import type { Ports } from '../tasks/ports.ts'
import { actorOf } from '../tasks/record-parts.ts'
import { closed, PROBLEMS, TENANT, TENANTS } from './schemas.ts'
import { limitOf, originOf, scopeOf, tenantIdOf } from './shared.ts'
import { tenantView } from './views.ts'

const tags = ['tenants']
const params = Type.Object({ tenant: Type.String({ maxLength: 64 }) }, closed)
const count = Type.Integer({ minimum: 0 })
const settings = {
  display: Type.Optional(Type.String({ maxLength: 200 })),
  trust: Type.Optional(
    Type.Union([Type.Literal('untrusted'), Type.Literal('verified'), Type.Literal('trusted')], {
      description: 'untrusted when a tenant is created without',
    }),
  ),
  quotas: Type.Optional(
    Type.Object(
      {
        vcpus: count,
        memory_mib: count,
        pods: count,
        launches_per_minute: Type.Optional(
          Type.Integer({
            minimum: 1,
            description:
              'Launches in a row, given back over a minute; left out: 30 at first, then as it is',
          }),
        ),
        volumes: Type.Optional(
          Type.Integer({ minimum: 0, description: 'Volumes and snapshots; 8 at first' }),
        ),
        volume_mib: Type.Optional(
          Type.Integer({ minimum: 0, description: 'Their sizes together; 10,240 at first' }),
        ),
      },
      closed,
    ),
  ),
  egress: Type.Optional(
    Type.Array(Type.String({ maxLength: EGRESS_WORD_MAX }), {
      maxItems: EGRESS_MAX,
      uniqueItems: true,
      description:
        'The most that its pods may reach beside each other: internet, 192.0.2.0/24, 2001:db8::/32=tcp:443; none when created without',
    }),
  ),
  ports: Type.Optional(
    Type.Array(Type.String({ maxLength: PORT_WORD_MAX }), {
      maxItems: PORTS_MAX,
      uniqueItems: true,
      description:
        'Ports of the host that its pods may have: 8000-8099 (of loopback), 0.0.0.0:443, [::]:8000-8099; none when created without',
    }),
  ),
  image_rule: Type.Optional(Type.Unknown({ description: 'Which images, signed by whom' })),
}
const tenantBody = Type.Object(
  {
    id: Type.String({ maxLength: 64, description: 'a-z, 0-9 and -; begins with a letter' }),
    ...settings,
  },
  closed,
)
const changeBody = Type.Object(
  {
    ...settings,
    state: Type.Optional(
      Type.Union([Type.Literal('active'), Type.Literal('suspended')], {
        description: 'A suspended tenant launches nothing; its pods run on',
      }),
    ),
  },
  { ...closed, minProperties: 1 },
)
const pageQuery = Type.Object(
  {
    limit: Type.Optional(Type.String({ pattern: '^[0-9]{1,4}$' })),
    cursor: Type.Optional(Type.String({ maxLength: 64 })),
  },
  closed,
)

/** Of a new tenant, where its body says nothing. */
const DEFAULTS = {
  trust: parseTrust('untrusted'),
  imageRule: null,
  egress: null,
  ports: [],
}

const digestOf = (value: Canonical): string =>
  `sha256:${createHash('sha256').update(canonicalJson(value)).digest('hex')}`

type Settings = Static<Type.TObject<typeof settings>>

/** Names of the wire into ours; what may be left out stays as it is. */
const quotasOf = (quotas: NonNullable<Settings['quotas']>) => ({
  vcpus: quotas.vcpus,
  memoryMib: quotas.memory_mib,
  pods: quotas.pods,
  ...(quotas.launches_per_minute === undefined
    ? {}
    : { launchesPerMinute: quotas.launches_per_minute }),
  ...(quotas.volumes === undefined ? {} : { volumes: quotas.volumes }),
  ...(quotas.volume_mib === undefined ? {} : { volumeMib: quotas.volume_mib }),
})

/** What a body says of a tenant, read; the rule again from its text, by the one parser there is for it. */
function settingsOf({ display, trust, quotas, egress, ports, image_rule: rule }: Settings) {
  return {
    ...(display === undefined ? {} : { display }),
    ...(trust === undefined ? {} : { trust: parseTrust(trust) }),
    ...(quotas === undefined ? {} : { quotas: quotasOf(quotas) }),
    ...(egress === undefined ? {} : { egress: parseEgress(egress) }),
    ...(ports === undefined ? {} : { ports: parsePortRanges(ports) }),
    ...(rule === undefined ? {} : { imageRule: parseImageRule(JSON.stringify(rule)) }),
  }
}

const recordOf = (tenant: Tenant, request: FastifyRequest) => ({
  tenant: tenant.id,
  trust: tenant.trust,
  actor: actorOf(callerOf(request), originOf(request)),
  image_rules: tenant.imageRule?.digest ?? digestOf(null),
  egress: egressWords(tenant.egress),
  ports: portRangeWords(tenant.ports),
  quota: digestOf({
    vcpus: tenant.quotas.vcpus.limit,
    memory_mib: tenant.quotas.memoryMib.limit,
    pods: tenant.quotas.pods.limit,
    launches_per_minute: tenant.launchesPerMinute,
    volumes: tenant.volumes,
    volume_mib: tenant.volumeMib,
  }),
})

const changes: (ports: Ports) => FastifyPluginCallbackTypebox =
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
        const wanted = settingsOf(body)
        const quotas = { ...DEFAULT_QUOTA_LIMITS, ...wanted.quotas }
        const tenant = await ports.tenants.createTenant(
          operator,
          { ...DEFAULTS, id, display: id, ...wanted, quotas },
          (made) => ports.audit.append({ type: 'tenant.created', ...recordOf(made, request) }),
        )
        return await reply.code(201).send(tenantView(tenant))
      },
    )
    app.patch(
      '/v1/tenants/:tenant',
      {
        schema: {
          tags,
          summary: 'Change a tenant: what is named, for launches from now on',
          params,
          body: changeBody,
          response: { 200: TENANT, ...PROBLEMS },
        },
      },
      async (request) => {
        const { body } = request
        const operator = ports.tenants.operator(callerOf(request))
        const { tenant: id } = await scopeOf(ports.tenants, request, request.params.tenant)
        const { state } = body
        const wanted = { ...settingsOf(body), ...(state === undefined ? {} : { state }) }
        const tenant = await ports.tenants.changeTenant(operator, id, wanted, (made) =>
          ports.audit.append({
            type: 'tenant.changed',
            changed: Object.keys(body).toSorted(),
            state: made.state,
            ...recordOf(made, request),
          }),
        )
        return tenantView(tenant)
      },
    )
    done()
  }

const removal: (ports: DeletePorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.delete(
      '/v1/tenants/:tenant',
      {
        schema: {
          tags,
          summary: 'Delete a suspended tenant whose pods have ended; its records stay',
          params,
          response: { 204: Type.Null(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const caller = callerOf(request)
        const operator = ports.tenants.operator(caller)
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        await deleteTenant(ports, operator, scope, actorOf(caller, originOf(request)))
        return await reply.code(204).send(null)
      },
    )
    done()
  }

const views: (ports: Ports) => FastifyPluginCallbackTypebox = (ports) => (app, _options, done) => {
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

export const tenantRoutes = (ports: Ports & DeletePorts): readonly FastifyPluginCallback[] => [
  changes(ports),
  removal(ports),
  views(ports),
]
