/**
 * /v1/audit — records and receipts. Operators read all of the log; a tenant reads the record of its
 * own pods' launches, and can prove it to others with the receipt.
 */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback } from 'fastify'
import { type Canonical, parseCanonical } from '../../policy/canonical.ts'
import type { Pod } from '../../tenants/index.ts'
import { notFound } from '../errors.ts'
import { callerOf } from '../identity.ts'
import type { Ports } from '../tasks/ports.ts'
import { closed, PROBLEMS, RECORD, RECORDS } from './schemas.ts'
import { chosenStart, limitOf, scopeOf } from './shared.ts'

const tags = ['audit']
const digits = Type.String({ pattern: '^[0-9]{1,15}$' })
const indexParams = Type.Object({ index: digits }, closed)
const podParams = Type.Object(
  { tenant: Type.String({ maxLength: 64 }), pod: Type.String({ maxLength: 64 }) },
  closed,
)
const startQuery = Type.Object(
  {
    attempt: Type.Optional(
      Type.String({
        pattern: '^[0-9]{1,9}$',
        description: 'Of that start; without it, of the newest',
      }),
    ),
  },
  closed,
)
const rangeQuery = Type.Object(
  {
    from: Type.Optional(digits),
    limit: Type.Optional(Type.String({ pattern: '^[0-9]{1,4}$' })),
  },
  closed,
)

interface RecordView {
  readonly index: number
  readonly record: Canonical
}

async function read(ports: Ports, index: number): Promise<RecordView> {
  if (index >= ports.audit.size) throw notFound()
  const { bytes } = await ports.audit.read(index)
  return { index, record: parseCanonical(bytes) }
}

async function receiptOf(ports: Ports, index: number): Promise<string> {
  if (index >= ports.audit.size) throw notFound()
  return await ports.audit.receipt(index)
}

const operators: (ports: Ports) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.get(
      '/v1/audit/records',
      {
        schema: {
          tags,
          summary: 'Records, in the order of the log',
          querystring: rangeQuery,
          response: { 200: RECORDS, ...PROBLEMS },
        },
      },
      async (request) => {
        ports.tenants.operator(callerOf(request))
        const from = Number(request.query.from ?? 0)
        const to = Math.min(from + limitOf(request.query.limit), ports.audit.size)
        const indexes = Array.from({ length: Math.max(to - from, 0) }, (_, at) => from + at)
        const records = await Promise.all(indexes.map((index) => read(ports, index)))
        return { records, next: to < ports.audit.size ? to : null }
      },
    )
    app.get(
      '/v1/audit/records/:index',
      {
        schema: {
          tags,
          summary: 'One record',
          params: indexParams,
          response: { 200: RECORD, ...PROBLEMS },
        },
      },
      async (request) => {
        ports.tenants.operator(callerOf(request))
        return await read(ports, Number(request.params.index))
      },
    )
    app.get(
      '/v1/audit/records/:index/receipt',
      {
        schema: {
          tags,
          summary: 'The record’s receipt: a C2SP tlog-proof',
          params: indexParams,
          response: { 200: Type.String(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        ports.tenants.operator(callerOf(request))
        const receipt = await receiptOf(ports, Number(request.params.index))
        return await reply.type('text/plain; charset=utf-8').send(receipt)
      },
    )
    done()
  }

/** A pod that was never launched has no intent. @throws ApiError NOT_FOUND */
function indexOf(pod: Pod): number {
  if (pod.recordIndex === null) throw notFound()
  return pod.recordIndex
}

const owners: (ports: Ports) => FastifyPluginCallbackTypebox = (ports) => (app, _options, done) => {
  app.get(
    '/v1/tenants/:tenant/pods/:pod/record',
    {
      schema: {
        tags,
        summary: 'The launch.intent record of a pod',
        params: podParams,
        querystring: startQuery,
        response: { 200: RECORD, ...PROBLEMS },
      },
    },
    async (request) => {
      const scope = await scopeOf(ports.tenants, request, request.params.tenant)
      const pod = await chosenStart(ports.tenants, scope, {
        name: request.params.pod,
        attempt: request.query.attempt,
      })
      return await read(ports, indexOf(pod))
    },
  )
  app.get(
    '/v1/tenants/:tenant/pods/:pod/receipt',
    {
      schema: {
        tags,
        summary: 'The receipt of that record: a C2SP tlog-proof',
        params: podParams,
        querystring: startQuery,
        response: { 200: Type.String(), ...PROBLEMS },
      },
    },
    async (request, reply) => {
      const scope = await scopeOf(ports.tenants, request, request.params.tenant)
      const pod = await chosenStart(ports.tenants, scope, {
        name: request.params.pod,
        attempt: request.query.attempt,
      })
      const receipt = await receiptOf(ports, indexOf(pod))
      return await reply.type('text/plain; charset=utf-8').send(receipt)
    },
  )
  done()
}

export const auditRoutes = (ports: Ports): readonly FastifyPluginCallback[] => [
  operators(ports),
  owners(ports),
]
