/**
 * The HTTP side, once for each listener: limits, identity, strict schemas, problem documents. What
 * the API does is in routes/ and tasks/; nothing is decided here.
 *
 * Order of a request: size limits, rate limit, identity, schema, route. The rate limit comes before
 * identity and before anything is recorded, so that nobody can fill the log or burn CPU on tokens;
 * rate-limit.ts says whose requests are counted together.
 */
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import helmet from '@fastify/helmet'
import rateLimit from '@fastify/rate-limit'
import swagger from '@fastify/swagger'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import websocket from '@fastify/websocket'
import Fastify, {
  type FastifyBaseLogger,
  type FastifyInstance,
  type FastifyPluginCallback,
  type FastifyReply,
  type FastifyRequest,
  LogController,
} from 'fastify'
import { parseJson } from '../policy/canonical.ts'
import type { Caller } from '../tenants/scope.ts'
import { countConnections } from './connections.ts'
import { ApiError, notFound, type PublicError, problemOf, publicError } from './errors.ts'
import { MESSAGE_BYTES_MAX, PROTOCOLS } from './exec-channels.ts'
import { callerIn, type IdentityPorts, identify, isOpen, remember } from './identity.ts'
import type { LiveTokens } from './live-tokens.ts'
import { KnownTokens, rateLimits } from './rate-limit.ts'
import { PROBLEM as PROBLEM_SCHEMA } from './routes/schemas.ts'
import { STORED_BODY_BYTES_MAX } from './routes/stored-files.ts'
import { schemaError } from './schema-errors.ts'
import { VERSION } from './version.ts'

const BODY_BYTES_MAX = 256 * 1024
/** As much as the route with the largest body takes; each has a limit of its own before this one. */
const JSON_LIMITS = { bytesMax: STORED_BODY_BYTES_MAX, depthMax: 32 }
const HEADER_BYTES_MAX = 16 * 1024
const REQUEST_MS = 30_000
const IDLE_MS = 72_000
const PROBLEM = 'application/problem+json; charset=utf-8'

export interface ServerOptions {
  readonly identity: IdentityPorts
  /** PEM key and certificate of the HTTPS listener; null for the unix socket. */
  readonly tls: { readonly key: string; readonly certificate: string } | null
  /** Requests a minute of one token's subject or local user. */
  readonly requestsPerMinute: number
  readonly log: FastifyBaseLogger
  readonly routes: readonly FastifyPluginCallback[]
  /** Of both listeners. */
  readonly live: LiveTokens
}

function answer(reply: FastifyReply, error: PublicError): FastifyReply {
  const problem = problemOf(error)
  if (problem.status === 401) void reply.header('www-authenticate', 'Bearer')
  return reply.code(problem.status).type(PROBLEM).serializer(JSON.stringify).send(problem)
}

function onError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const shown = publicError(error)
  if (shown.code === 'INTERNAL') request.log.error({ err: error }, 'request failed')
  return answer(reply, shown)
}

/** Bytes that are no HTTP request never reach fastify; they get a problem document all the same. */
function onClientError(error: Error & { code?: string }, socket: Socket): void {
  const timeout = error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
  const large = error.code === 'HPE_HEADER_OVERFLOW'
  const shown = timeout
    ? new ApiError('REQUEST_TIMEOUT', 'The request did not arrive in time.')
    : new ApiError('BAD_REQUEST', large ? 'The headers are too large.' : 'This is no HTTP request.')
  const problem = problemOf(shown)
  const body = JSON.stringify(problem)
  if (!socket.writable) return
  socket.end(
    `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status] ?? ''}\r\nconnection: close\r\n` +
      `content-type: ${PROBLEM}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
  )
}

/** Fastify's options: every limit is said, and JSON schemas neither convert nor drop anything. */
const limits = {
  bodyLimit: BODY_BYTES_MAX,
  requestTimeout: REQUEST_MS,
  keepAliveTimeout: IDLE_MS,
  routerOptions: { maxParamLength: 200, ignoreTrailingSlash: false, caseSensitive: true },
  exposeHeadRoutes: false,
  forceCloseConnections: true,
  return503OnClosing: false,
  onProtoPoisoning: 'error',
  onConstructorPoisoning: 'error',
  ajv: {
    customOptions: {
      removeAdditional: false,
      coerceTypes: false,
      useDefaults: false,
      allErrors: false,
    },
  },
} as const

function create(options: ServerOptions): FastifyInstance {
  const common = {
    ...limits,
    loggerInstance: options.log,
    // Fastify has two lines for each request, refused ones included: strangers could fill the disk.
    logController: new LogController({ disableRequestLogging: true }),
    clientErrorHandler: onClientError,
    frameworkErrors: onError,
    schemaErrorFormatter: schemaError,
  }
  const http = { maxHeaderSize: HEADER_BYTES_MAX }
  const { tls } = options
  if (tls === null) return Fastify({ ...common, http })
  const https = { ...http, key: tls.key, cert: tls.certificate, minVersion: 'TLSv1.3' } as const
  const secure: unknown = Fastify({ ...common, https })
  assertInstance(secure)
  return secure
}

/** The two instances differ only in the type of their raw server, which nobody here looks at. */
function assertInstance(_app: unknown): asserts _app is FastifyInstance {}

const description = `Casemate runs signed container images of tenants, untrusted ones in KVM virtual
machines, and records every launch. Errors are problem documents (RFC 9457); their \`code\` is stable.`

/** First of all: its hooks close the connections of upgrades that are refused, by whomever. */
async function webSockets(app: FastifyInstance): Promise<void> {
  await app.register(websocket, {
    options: {
      maxPayload: MESSAGE_BYTES_MAX,
      perMessageDeflate: false,
      // Answers to pings would wait without bound for a caller that reads none: exec-session.ts gives them.
      autoPong: false,
      handleProtocols: (offered: Set<string>) => PROTOCOLS.find((one) => offered.has(one)) ?? false,
    },
    errorHandler: (_error, socket) => {
      socket.terminate()
    },
    preClose: (done) => {
      for (const socket of app.websocketServer.clients) socket.terminate()
      app.websocketServer.close(() => {
        done()
      })
    },
  })
}

async function plugins(app: FastifyInstance): Promise<void> {
  await app.register(helmet, {
    global: true,
    contentSecurityPolicy: { directives: { defaultSrc: ["'none'"] } },
  })
  await app.register(swagger, {
    refResolver: {
      // The name of a component is the schema's own, not def-0.
      buildLocalReference: ({ $id }, _base, _fragment, index) =>
        typeof $id === 'string' ? $id : `def-${index}`,
    },
    openapi: {
      openapi: '3.1.0',
      info: { title: 'Casemate', description, version: VERSION },
      components: {
        securitySchemes: { token: { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' } },
      },
      security: [{ token: [] }],
    },
  })
}

/** All of a tenant's tokens are one caller where it is about who holds how much. */
const whoseOf = (caller: Caller): string =>
  caller.kind === 'operator' ? `uid:${caller.uid}` : caller.tenant

/** Who calls, and not too often. Hooks of the instance: they are there for a path nobody serves, too. */
async function callers(app: FastifyInstance, options: ServerOptions): Promise<void> {
  const { identity, requestsPerMinute } = options
  const tokens = new KnownTokens()
  const connectionsOf = countConnections(app.server, identity)
  app.addHook('onRequest', (request, _reply, done) => {
    connectionsOf(request.raw.socket).touch(request.raw.socket)
    done()
  })
  await app.register(rateLimit, rateLimits(identity.transport, requestsPerMinute, tokens))
  app.addHook('onRequest', app.rateLimit())
  app.addHook('onRequest', async (request, reply) => {
    if (isOpen(request)) return
    const header = request.headers.authorization
    try {
      const caller = await identify(request, identity)
      remember(request, caller)
      const { socket } = request.raw
      connectionsOf(socket).begin(socket, whoseOf(caller), reply.raw)
      if (caller.kind === 'tenant') options.live.begin(caller, socket, reply.raw)
      if (header !== undefined && caller.kind === 'tenant') tokens.remember(header, caller.subject)
    } catch (error) {
      if (header !== undefined) tokens.forget(header)
      throw error
    }
  })
}

/** Strict: JSON.parse would keep the last of two members of one name, and round large numbers. */
function readJson(
  _request: FastifyRequest,
  body: string | Buffer,
  done: (error: Error | null, value?: unknown) => void,
): void {
  try {
    done(null, parseJson(body, JSON_LIMITS))
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    done(new ApiError('BAD_REQUEST', `The body is no strict JSON: ${why}.`, {}, { cause }))
  }
}

/** One line for each request of somebody known; the rate limit bounds them. */
async function note(request: FastifyRequest, reply: FastifyReply): Promise<void> {
  const caller = callerIn(request)
  if (caller === null) return
  const who = caller.kind === 'operator' ? `uid:${caller.uid}` : caller.subject
  const { method, url } = request
  // Without the query: a command to execute and its environment are in it.
  const [place] = url.split('?')
  request.log.info({ who, method, url: place, status: reply.statusCode }, 'request')
}

/** Builds one listener's application; it does not listen yet. */
export async function buildServer(options: ServerOptions): Promise<FastifyInstance> {
  const app = create(options).withTypeProvider<TypeBoxTypeProvider>()
  app.setErrorHandler(onError)
  app.addSchema(PROBLEM_SCHEMA)
  app.removeContentTypeParser(['application/json', 'text/plain'])
  app.addContentTypeParser('application/json', { parseAs: 'buffer' }, readJson)
  await webSockets(app)
  await plugins(app)
  await callers(app, options)
  app.setNotFoundHandler((_request, reply) => answer(reply, notFound()))
  app.addHook('onResponse', note)
  for (const routes of options.routes) await app.register(routes)
  app.get('/v1/openapi.json', { schema: { hide: true } }, () => app.swagger())
  await app.ready()
  return app
}
