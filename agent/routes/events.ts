/** /v1/tenants/{tenant}/events and /v1/events: what happened, and what happens, one JSON object a line. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { Readable } from 'node:stream'
import {
  type FastifyPluginCallbackTypebox,
  type TUnsafe,
  Type,
} from '@fastify/type-provider-typebox'
import type { FastifyReply } from 'fastify'
import { parsePodId } from '../../policy/index.ts'
import { type TenantScope, type Tenants, TenantsError } from '../../tenants/index.ts'
import { callerOf } from '../identity.ts'
import {
  beginningOf,
  type EventEntry,
  type EventFilter,
  type EventsCall,
  type EventsPorts,
  eventsFrom,
} from '../tasks/events.ts'
import { msOf } from './log-query.ts'
import { OpenAnswers } from './open-answers.ts'
import { closed, PROBLEMS } from './schemas.ts'
import { podIdOf, scopeOf } from './shared.ts'

const tags = ['events']
const repeatable = (one: Parameters<typeof Type.String>[0], description: string) =>
  Type.Optional(
    Type.Union([Type.String(one), Type.Array(Type.String(one), { maxItems: 32 })], {
      description: `${description}; repeatable`,
    }),
  )
const members = {
  since: Type.Optional(
    Type.String({
      pattern: '^[0-9]{1,15}$',
      description: 'The `next` of the last event that was seen: those after it, each once',
    }),
  ),
  from: Type.Optional(
    Type.String({
      maxLength: 40,
      description: 'No event before: RFC 3339, or a time ago such as 10m; not with since',
    }),
  ),
  follow: Type.Optional(
    Type.Union([Type.Literal('true'), Type.Literal('false')], {
      description: 'Go on with what happens from now on',
    }),
  ),
  type: repeatable(
    { pattern: '^[a-z]{1,32}(\\.[a-z_]{1,32})?$' },
    'A type, or all that begin so: launch.exited, exec',
  ),
  pod: Type.Optional(Type.String({ maxLength: 64, description: 'Of this pod alone' })),
  label: repeatable({ maxLength: 512 }, 'KEY or KEY=value, each of which the pod has'),
}

interface EventQuery {
  readonly since?: string
  readonly from?: string
  readonly follow?: string
  readonly type?: string | string[]
  readonly pod?: string
  readonly label?: string | string[]
}
const EVENT_QUERY: TUnsafe<EventQuery> = Type.Unsafe<EventQuery>(
  Type.Object(members, { ...closed, not: { required: ['since', 'from'] } }),
)

/** The pod's id; of a pod that was removed its events may be kept still. @throws TenantsError POD_NOT_FOUND */
async function podMeant(
  tenants: Tenants,
  scope: TenantScope,
  name: string | undefined,
): Promise<string | null> {
  if (name === undefined) return null
  try {
    return (await tenants.findPod(scope, name)).origin
  } catch (error) {
    if (!(error instanceof TenantsError) || error.code !== 'POD_NOT_FOUND') throw error
    try {
      return parsePodId(name)
    } catch {
      throw error
    }
  }
}

const filterOf = ({ type = [], label = [] }: EventQuery, pod: string | null): EventFilter => ({
  types: [type].flat(),
  pod,
  labels: [label].flat(),
})

const startOf = ({ since, from }: EventQuery, nowMs: number): EventsCall['start'] => ({
  since: since === undefined ? null : Number(since),
  fromMs: from === undefined ? null : msOf('from', from, nowMs),
})

async function* asLines(events: AsyncIterable<EventEntry>): AsyncGenerator<string> {
  for await (const event of events) yield `${JSON.stringify(event)}\n`
}

async function answer(
  ports: EventsPorts,
  reply: FastifyReply,
  call: EventsCall,
): Promise<FastifyReply> {
  const from = await beginningOf(ports, call)
  void reply.type('application/x-ndjson')
  return await reply.send(Readable.from(asLines(eventsFrom(ports, call, from))))
}

const schemaOf = (summary: string) => ({
  tags,
  summary,
  querystring: EVENT_QUERY,
  response: { 200: Type.String(), ...PROBLEMS },
})

export const eventRoutes: (
  ports: EventsPorts & { readonly now: () => number },
  open: OpenAnswers,
) => FastifyPluginCallbackTypebox = (ports, open) => (app, _options, done) => {
  // Not kept out by what tenants have open.
  const ofOperators = new OpenAnswers()
  app.get(
    '/v1/tenants/:tenant/events',
    {
      schema: {
        ...schemaOf('Events of a tenant, as application/x-ndjson'),
        params: Type.Object({ tenant: Type.String({ maxLength: 64 }) }, closed),
      },
    },
    async (request, reply) => {
      const { query } = request
      const scope = await scopeOf(ports.tenants, request, request.params.tenant)
      const pod = await podMeant(ports.tenants, scope, query.pod)
      const call = {
        scope,
        filter: filterOf(query, pod),
        start: startOf(query, ports.now()),
        follow: query.follow === 'true',
        gone: open.begin(scope.tenant, reply.raw),
      }
      return await answer(ports, reply, call)
    },
  )
  app.get(
    '/v1/events',
    { schema: schemaOf('Events of the host and of all tenants, for operators') },
    async (request, reply) => {
      const { query } = request
      const scope = ports.tenants.operator(callerOf(request))
      const call = {
        scope,
        filter: filterOf(query, query.pod === undefined ? null : podIdOf(query.pod)),
        start: startOf(query, ports.now()),
        follow: query.follow === 'true',
        gone: ofOperators.begin(scope.identity, reply.raw),
      }
      return await answer(ports, reply, call)
    },
  )
  done()
}
