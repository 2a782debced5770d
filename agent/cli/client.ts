/** The CLI's way to the agent: a unix socket, or HTTPS with a token. It uses the public API only. */
import { existsSync, readFileSync } from 'node:fs'
import { Agent, type Dispatcher, request } from 'undici'
import { readNamed, UsageError } from './arguments.ts'

const DEFAULT_SOCKET = '/run/casemate/agent/agent.sock'
const DEFAULT_CA = '/run/casemate/agent/certificate.pem'
const ANSWER_BYTES_MAX = 64 << 20
const TOKEN_BYTES_MAX = 8192
const ADVICE = 'Start it with `casemate up`, or say with --socket or --url where it is.'

/** Where to go and as whom: flags of every command. */
export interface Target {
  readonly socket?: string
  readonly url?: string
  readonly ca?: string
  /** `-` reads it from standard input. Never the token itself: arguments are seen by everybody. */
  readonly tokenFile?: string
}

/** What the API answered when it did not do it. */
export class ProblemError extends Error {
  override readonly name = 'ProblemError'
  readonly code: string
  readonly document: unknown
  constructor(code: string, detail: string, document: unknown) {
    super(detail)
    this.code = code
    this.document = document
  }
}

/** Nobody answered. */
export class Unreachable extends Error {
  override readonly name = 'Unreachable'
}

export interface Answer {
  readonly status: number
  readonly body: Dispatcher.ResponseData['body']
}

export interface Call {
  readonly method: 'GET' | 'POST' | 'PATCH' | 'DELETE'
  readonly path: string
  readonly body?: unknown
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

export interface Client {
  /** The answer's JSON, or null where there is none. @throws ProblemError, Unreachable */
  json(call: Call): Promise<unknown>
  text(call: Call): Promise<string>
  /** The answer as it comes, for logs. */
  stream(call: Call): Promise<AsyncIterable<Buffer>>
  close(): Promise<void>
}

function tokenOf(file: string | undefined): string | null {
  if (file === undefined) return null
  const text = readNamed('--token-file', file).trim()
  if (text === '' || text.length > TOKEN_BYTES_MAX) {
    throw new UsageError(`--token-file ${file} holds no access token: issue one into it`)
  }
  return text
}

export function problemOf(text: string, status: number): ProblemError {
  try {
    const document: unknown = JSON.parse(text)
    if (typeof document === 'object' && document !== null) {
      const code: unknown = Reflect.get(document, 'code')
      const detail: unknown = Reflect.get(document, 'detail')
      if (typeof code === 'string' && typeof detail === 'string') {
        return new ProblemError(code, detail, document)
      }
    }
  } catch {
    // Not from the agent: a proxy perhaps. The status is all there is.
  }
  return new ProblemError(
    'INTERNAL',
    `The answer was HTTP ${status} without a problem document.`,
    null,
  )
}

async function readText(body: Answer['body']): Promise<string> {
  const chunks: Buffer[] = []
  let size = 0
  for await (const chunk of body as AsyncIterable<Buffer>) {
    size += chunk.length
    if (size > ANSWER_BYTES_MAX)
      throw new Error(`the answer is longer than ${ANSWER_BYTES_MAX} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString('utf8')
}

/** Where an agent listens, by flags and environment. */
export type Place =
  | { readonly kind: 'unix'; readonly socket: string }
  | { readonly kind: 'https'; readonly url: string; readonly caFile: string }

interface Endpoint {
  readonly origin: string
  readonly dispatcher: Agent
  readonly where: string
}

/** No time-outs between bytes: a log may be silent for days. */
const patient = { headersTimeout: 0, bodyTimeout: 0 } as const

function unixEndpoint(socketPath: string): Endpoint {
  const dispatcher = new Agent({ ...patient, connect: { socketPath } })
  return { origin: 'http://casemate', dispatcher, where: socketPath }
}

/** @throws UsageError */
export function originOf(url: string): string {
  const { origin, protocol } = URL.parse(url) ?? { origin: '', protocol: '' }
  if (protocol === 'https:') return origin
  throw new UsageError('the URL of an agent must be https, such as https://127.0.0.1:8443')
}

/** Without the file: what the system trusts. */
export const trustOf = (caFile: string): { readonly ca?: string } =>
  existsSync(caFile) ? { ca: readFileSync(caFile, 'utf8') } : {}

function httpsEndpoint(url: string, caFile: string): Endpoint {
  const origin = originOf(url)
  const ca = trustOf(caFile)
  return { origin, dispatcher: new Agent({ ...patient, connect: ca }), where: origin }
}

/** Flags before environment, a URL before a socket. */
export function placeOf(target: Target): Place {
  const { CASEMATE_URL, CASEMATE_CA, CASEMATE_SOCKET } = process.env
  const url = target.url ?? (target.socket === undefined ? CASEMATE_URL : undefined)
  if (url === undefined) {
    return { kind: 'unix', socket: target.socket ?? CASEMATE_SOCKET ?? DEFAULT_SOCKET }
  }
  return { kind: 'https', url, caFile: target.ca ?? CASEMATE_CA ?? DEFAULT_CA }
}

function endpointOf(target: Target): Endpoint {
  const place = placeOf(target)
  return place.kind === 'unix' ? unixEndpoint(place.socket) : httpsEndpoint(place.url, place.caFile)
}

/** @throws when the token file cannot be used */
export function authorizationOf(target: Target): Readonly<Record<string, string>> {
  const token = tokenOf(target.tokenFile ?? process.env['CASEMATE_TOKEN_FILE'])
  return token === null ? {} : { authorization: `Bearer ${token}` }
}

/** @throws when the token file or the URL cannot be used */
export function connect(target: Target): Client {
  const { origin, dispatcher, where } = endpointOf(target)
  const authorization = authorizationOf(target)
  const send = async ({ method, path, body, headers, signal }: Call): Promise<Answer> => {
    const content = body === undefined ? {} : { 'content-type': 'application/json' }
    try {
      const { statusCode: status, body: answer } = await request(`${origin}${path}`, {
        dispatcher,
        method,
        headers: { ...authorization, ...content, ...headers },
        body: body === undefined ? null : JSON.stringify(body),
        signal: signal ?? null,
      })
      if (status < 400) return { status, body: answer }
      throw problemOf(await readText(answer), status)
    } catch (cause) {
      if (cause instanceof ProblemError || signal?.aborted === true) throw cause
      const why = cause instanceof Error ? cause.message : String(cause)
      throw new Unreachable(`the agent at ${where} does not answer (${why}). ${ADVICE}`, { cause })
    }
  }
  return {
    json: async (call) => {
      const { status, body } = await send(call)
      const text = await readText(body)
      const value: unknown = status === 204 ? null : JSON.parse(text)
      return value
    },
    text: async (call) => await readText((await send(call)).body),
    stream: async (call) => (await send(call)).body as AsyncIterable<Buffer>,
    close: async () => {
      await dispatcher.close()
    },
  }
}

/** The tenant a token is for. Not verified: it only saves typing, and the agent decides. */
export function tenantOfToken(target: Target): string | null {
  const file = target.tokenFile ?? process.env['CASEMATE_TOKEN_FILE']
  if (file === undefined || file === '-') return null
  try {
    const payload = readFileSync(file, 'utf8').split('.')[1] ?? ''
    const claims: unknown = JSON.parse(Buffer.from(payload, 'base64url').toString('utf8'))
    const tenant: unknown =
      typeof claims === 'object' && claims !== null ? Reflect.get(claims, 'tenant') : null
    return typeof tenant === 'string' ? tenant : null
  } catch {
    return null
  }
}
