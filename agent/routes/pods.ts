/** /v1/tenants/{tenant}/pods — the wire only: shape in, task, shape out. */
/* oxlint-disable oxc/no-async-endpoint-handlers -- a rule for Express; fastify awaits handlers */
import { createHash } from 'node:crypto'
import { Readable } from 'node:stream'
import { type FastifyPluginCallbackTypebox, Type } from '@fastify/type-provider-typebox'
import type { FastifyPluginCallback, FastifyReply, FastifyRequest } from 'fastify'
import { type Canonical, canonicalJson } from '../../policy/canonical.ts'
import { parseDigest, parsePodId, STOP_MS_MAX } from '../../policy/index.ts'
import { type Answer, type IdempotencyKey, parseIdempotencyKey } from '../../tenants/index.ts'
import { ApiError, problemOf, publicError } from '../errors.ts'
import { callerOf } from '../identity.ts'
import { removeAsked } from '../tasks/gc.ts'
import { type LaunchPorts, launch } from '../tasks/launch.ts'
import { podLog } from '../tasks/pod-log.ts'
import { selectedLog } from '../tasks/pod-log-select.ts'
import { actorOf, keyDigest } from '../tasks/record-parts.ts'
import { stop } from '../tasks/stop.ts'
import { WAIT_STATES, type WaitState, waitFor } from '../tasks/wait.ts'
import {
  aboutOf,
  credentialsOf,
  LAUNCH_BODY,
  type LaunchBody,
  parseLaunch,
  restartOf,
} from './launch-body.ts'
import { LOG_QUERY, selectionOf } from './log-query.ts'
import type { OpenAnswers } from './open-answers.ts'
import { isListed, POD_LIST_QUERY } from './pod-filter.ts'
import { asLines, asText } from './pod-logs.ts'
import { closed, POD, POD_PARAMS, POD_WITH_STARTS, PODS, PROBLEMS } from './schemas.ts'
import { limitOf, originOf, podIdOf, scopeOf, shown, startOf } from './shared.ts'
import { podView, startView } from './views.ts'

const WAIT_S_DEFAULT = 60
const WAIT_S_MAX = 3600

const tags = ['pods']
const tenantParams = Type.Object({ tenant: Type.String({ maxLength: 64 }) }, closed)
const digits = (pattern: string, description: string) => Type.String({ pattern, description })
const launchHeaders = Type.Object({
  'idempotency-key': Type.Optional(Type.String({ description: 'Required; fresh for each launch' })),
})
const waitQuery = Type.Object(
  {
    timeout_s: Type.Optional(digits('^[0-9]{1,4}$', 'At most 3600; 60 when left out')),
    for: Type.Optional(
      Type.Unsafe<WaitState>(
        Type.Union(
          WAIT_STATES.map((state) => Type.Literal(state)),
          { description: 'exited, for good, when left out' },
        ),
      ),
    ),
  },
  closed,
)
const stopBody = Type.Object(
  {
    timeout_ms: Type.Optional(
      Type.Integer({
        minimum: 0,
        maximum: STOP_MS_MAX,
        description: 'From asking to killing. Without it, the pod’s own',
      }),
    ),
  },
  closed,
)

function keyOf(header: string | undefined): IdempotencyKey {
  if (header !== undefined) return parseIdempotencyKey(header)
  const sentence =
    'A launch needs an Idempotency-Key header, fresh for each launch: a UUID will do.'
  throw new ApiError('IDEMPOTENCY_KEY_MISSING', sentence)
}

/**
 * What is on record and in the store for a request, without the credentials: from a digest over them
 * a password could be guessed. So they may also be fresh ones when a request is sent again.
 */
const withoutSecrets = ({ registry_credentials: _secret, ...rest }: LaunchBody): Canonical => rest

const digestOf = (request: Canonical): string =>
  `sha256:${createHash('sha256').update(canonicalJson(request)).digest('hex')}`

function send(reply: FastifyReply, answer: Answer): FastifyReply {
  const type = answer.status < 400 ? 'application/json' : 'application/problem+json'
  return reply
    .code(answer.status)
    .type(`${type}; charset=utf-8`)
    .serializer(String)
    .send(answer.body)
}

/** Launches, and keeps the answer for the same request sent again, unless what it says passes. */
async function answerLaunch(
  ports: LaunchPorts,
  { request, reply }: { readonly request: FastifyRequest; readonly reply: FastifyReply },
  wire: { readonly tenant: string; readonly key: string | undefined; readonly body: LaunchBody },
): Promise<Answer> {
  const caller = callerOf(request)
  const scope = await scopeOf(ports.tenants, request, wire.tenant)
  const key = keyOf(wire.key)
  const { body } = wire
  const parsed = parseLaunch(body, parsePodId(ports.clock.uuid()), caller)
  const rule = restartOf(body)
  const kept = withoutSecrets(body)
  const requestDigest = digestOf(kept)
  const created = await ports.tenants.createPod(scope, {
    id: parsed.pod,
    imageReference: body.image,
    request: { key, bodyDigest: parseDigest(requestDigest) },
    about: aboutOf(body),
    restart: rule === null ? null : { rule, request: kept },
  })
  if (created.kind === 'replay') return created.answer
  const call = {
    scope,
    actor: actorOf(caller, originOf(request)),
    image: body.image,
    request: parsed,
    credentials: credentialsOf(body),
    requestDigest,
    keyDigest: keyDigest(key),
    restart: null,
  }
  const answer = await launch(ports, call).then(
    (pod): Answer => ({ status: 201, body: JSON.stringify(podView(pod)) }),
    (error: unknown): Answer => {
      const problem = problemOf(publicError(error))
      const seconds = problem.facts['retry_after_s']
      if (typeof seconds === 'number') void reply.header('retry-after', seconds)
      return { status: problem.status, body: JSON.stringify(problem) }
    },
  )
  await ports.tenants.answerRequest(scope, parsed.pod, answer)
  return answer
}

/** Changes: a pod comes, is told to stop, goes. */
const commands: (ports: LaunchPorts) => FastifyPluginCallbackTypebox =
  (ports) => (app, _options, done) => {
    app.post(
      '/v1/tenants/:tenant/pods',
      {
        schema: {
          tags,
          summary: 'Launch a pod',
          params: tenantParams,
          headers: launchHeaders,
          body: LAUNCH_BODY,
          response: { 201: POD, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const { tenant } = request.params
        const key = request.headers['idempotency-key']
        const wire = { tenant, key, body: request.body }
        const end = ports.launching.begin()
        try {
          return send(reply, await answerLaunch(ports, { request, reply }, wire))
        } finally {
          // Under way until the answer is out, or nobody is there to take it.
          if (reply.raw.closed) end()
          else reply.raw.once('close', end)
        }
      },
    )
    app.post(
      '/v1/tenants/:tenant/pods/:pod/stop',
      {
        schema: {
          tags,
          summary: 'Ask a pod to end',
          params: POD_PARAMS,
          body: stopBody,
          response: { 202: POD, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const pod = await stop(ports, {
          scope,
          caller: callerOf(request),
          origin: originOf(request),
          pod: (await startOf(ports.tenants, scope, request.params.pod)).id,
          timeoutMs: request.body.timeout_ms ?? null,
        })
        return await reply.code(202).send(shown(ports, pod))
      },
    )
    app.delete(
      '/v1/tenants/:tenant/pods/:pod',
      {
        schema: {
          tags,
          summary: 'Remove an ended pod and its log',
          params: POD_PARAMS,
          response: { 204: Type.Null(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const { id } = await startOf(ports.tenants, scope, request.params.pod)
        const actor = actorOf(callerOf(request), originOf(request))
        await removeAsked(ports, { scope, pod: id }, actor)
        return await reply.code(204).send(null)
      },
    )
    done()
  }

/** Questions: nothing changes. */
const questions: (ports: LaunchPorts, open: OpenAnswers) => FastifyPluginCallbackTypebox =
  (ports, open) => (app, _options, done) => {
    app.get(
      '/v1/tenants/:tenant/pods',
      {
        schema: {
          tags,
          summary: 'List pods, the newest first',
          params: tenantParams,
          querystring: POD_LIST_QUERY,
          response: { 200: PODS, ...PROBLEMS },
        },
      },
      async (request) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const { cursor } = request.query
        const limit = limitOf(request.query.limit)
        const before = cursor === undefined ? null : podIdOf(cursor)
        const pods = await ports.tenants.listPods(scope, { limit, cursor: before })
        const next = pods.length === limit ? (pods.at(-1)?.origin ?? null) : null
        const views = pods.map((pod) => shown(ports, pod))
        return { pods: views.filter((view) => isListed(view, request.query)), next }
      },
    )
    app.get(
      '/v1/tenants/:tenant/pods/:pod',
      {
        schema: {
          tags,
          summary: 'One pod, with all of its starts that are kept',
          params: POD_PARAMS,
          response: { 200: POD_WITH_STARTS, ...PROBLEMS },
        },
      },
      async (request) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const pod = await startOf(ports.tenants, scope, request.params.pod)
        const starts = await ports.tenants.listStarts(scope, pod.id)
        return { ...shown(ports, pod), starts: starts.map(startView) }
      },
    )
    app.get(
      '/v1/tenants/:tenant/pods/:pod/wait',
      {
        schema: {
          tags,
          summary: 'Wait until a pod runs, is healthy, or has ended and is not started again',
          params: POD_PARAMS,
          querystring: waitQuery,
          response: { 200: POD, ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const seconds = Math.min(Number(request.query.timeout_s ?? WAIT_S_DEFAULT), WAIT_S_MAX)
        const { id: pod } = await startOf(ports.tenants, scope, request.params.pod)
        const gone = open.begin(scope.tenant, reply.raw)
        const until = request.query.for ?? 'exited'
        const call = { scope, pod, until, timeoutMs: seconds * 1000, gone }
        return shown(ports, await waitFor(ports, call))
      },
    )
    done()
  }

const logs: (ports: LaunchPorts, open: OpenAnswers) => FastifyPluginCallbackTypebox =
  (ports, open) => (app, _options, done) => {
    app.get(
      '/v1/tenants/:tenant/pods/:pod/logs',
      {
        schema: {
          tags,
          summary: 'A pod’s log, as application/x-ndjson or, if asked for, text/plain',
          params: POD_PARAMS,
          querystring: LOG_QUERY,
          response: { 200: Type.String(), ...PROBLEMS },
        },
      },
      async (request, reply) => {
        const scope = await scopeOf(ports.tenants, request, request.params.tenant)
        const { id: pod } = await startOf(ports.tenants, scope, request.params.pod)
        const selection = selectionOf(request.query, ports.now())
        const gone = open.begin(scope.tenant, reply.raw)
        const plain = request.headers.accept === 'text/plain'
        void reply.type(plain ? 'text/plain; charset=utf-8' : 'application/x-ndjson')
        const { query } = request
        const call = {
          scope,
          pod,
          from: {
            attempt: query.attempt === undefined ? null : Number(query.attempt),
            offset: Number(query.since ?? 0),
          },
          follow: query.follow === 'true',
          gone,
        }
        const log = selectedLog((one) => podLog(ports, one), call, selection)
        return await reply.send(Readable.from(plain ? asText(log) : asLines(log)))
      },
    )
    done()
  }

export const podRoutes = (
  ports: LaunchPorts,
  open: OpenAnswers,
): readonly FastifyPluginCallback[] => [commands(ports), questions(ports, open), logs(ports, open)]
