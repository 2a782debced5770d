/**
 * HTTP as registries need it: redirects by hand (never with credentials to another host), every hop
 * through the address guard, retries that wait as long as the registry asks, within bounds.
 */
/* oxlint-disable no-await-in-loop -- hops and retries come one after the other */
import { setTimeout as sleep } from 'node:timers/promises'
import { Agent, type Dispatcher, request } from 'undici'

import { ImageError, show } from '../errors.ts'
import { checkUrl, guardedLookup, type Reach, type RegistryAllowance } from './address.ts'

export type Headers = Readonly<Record<string, string>>

export interface HttpCall {
  readonly method: 'GET' | 'HEAD' | 'PUT' | 'POST'
  readonly url: URL
  readonly headers: Headers
  readonly body?: Buffer
  /** For everything: connecting, redirects, retries and the body. */
  readonly timeoutMs: number
}

export interface HttpAnswer {
  readonly status: number
  readonly headers: Dispatcher.ResponseData['headers']
  readonly body: Dispatcher.ResponseData['body']
  /** Where the answer came from, after redirects. */
  readonly url: URL
}

const HOPS_MAX = 5
const TRIES_MAX = 4
const RETRY_AFTER_MS_MAX = 15_000
const RETRY_STATUS = new Set([408, 429, 500, 502, 503, 504])
const REDIRECT_STATUS = new Set([301, 302, 303, 307, 308])

const newAgent = (reach: Reach): Agent =>
  new Agent({
    connect: { lookup: guardedLookup(reach), timeout: 10_000 },
    headersTimeout: 30_000,
    bodyTimeout: 30_000,
    maxHeaderSize: 16_384,
    connections: 16,
  })

/** One value of a header; registries that send several are read by the first. */
export function headerOf(answer: HttpAnswer, name: string): string | null {
  const value = answer.headers[name]
  return (Array.isArray(value) ? value[0] : value) ?? null
}

/** Milliseconds that Retry-After asks for: seconds or a date (RFC 9110 section 10.2.3). */
function retryAfterMs(answer: HttpAnswer): number | null {
  const value = headerOf(answer, 'retry-after')
  if (value === null) return null
  const ms = /^[0-9]{1,6}$/u.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isNaN(ms) ? null : Math.min(Math.max(ms, 0), RETRY_AFTER_MS_MAX)
}

const backoffMs = (attempt: number): number => 200 * 2 ** attempt * (0.5 + Math.random())

const unavailable = (url: URL, cause: unknown): ImageError => {
  const why = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
  return new ImageError(
    'REGISTRY_UNAVAILABLE',
    `The registry ${show(url.host)} cannot be reached (${why.slice(0, 100)}). Try again later.`,
    { cause },
  )
}

/** Frees the connection of an answer that nobody reads. */
export const discard = async (answer: HttpAnswer): Promise<void> => {
  await answer.body.dump({ limit: 65_536 }).catch(() => undefined)
}

/** Ends an answer whose body nobody wants; the connection goes with it. */
export function abandon(answer: HttpAnswer): void {
  // Destroying makes the body fail, and nobody else listens.
  answer.body.on('error', () => undefined)
  answer.body.destroy()
}

/** The error of ours that undici wrapped, when the guard refused. */
function guardRefusal(error: unknown): ImageError | null {
  if (error instanceof ImageError) return error
  return error instanceof Error && error.cause instanceof ImageError ? error.cause : null
}

export class RegistryHttp {
  readonly #allowances: readonly RegistryAllowance[]
  readonly #agents = new Map<Reach, Agent>()

  constructor(allowances: readonly RegistryAllowance[]) {
    this.#allowances = allowances
  }

  async close(): Promise<void> {
    await Promise.all([...this.#agents.values()].map((agent) => agent.destroy()))
  }

  /** Sends and follows; answers any status but redirects and those that were retried in vain. */
  async send(call: HttpCall): Promise<HttpAnswer> {
    const signal = AbortSignal.timeout(call.timeoutMs)
    for (let attempt = 0; ; attempt += 1) {
      const last = attempt + 1 === TRIES_MAX
      const answer = await this.#follow(call, signal).catch((error: unknown) => {
        const refused = guardRefusal(error)
        if (refused !== null) throw refused
        if (last || signal.aborted) throw unavailable(call.url, error)
        return null
      })
      if (answer !== null && !RETRY_STATUS.has(answer.status)) return answer
      if (answer !== null && last) return answer
      if (answer !== null) await discard(answer)
      const wait = (answer === null ? null : retryAfterMs(answer)) ?? backoffMs(attempt)
      await sleep(wait, undefined, { signal }).catch((error: unknown) => {
        throw unavailable(call.url, error)
      })
    }
  }

  async #follow(call: HttpCall, signal: AbortSignal): Promise<HttpAnswer> {
    let { url, headers } = call
    for (let hop = 0; hop <= HOPS_MAX; hop += 1) {
      const answer = await this.#once({ ...call, url, headers }, signal)
      const location = headerOf(answer, 'location')
      if (!REDIRECT_STATUS.has(answer.status) || location === null || call.body !== undefined) {
        return answer
      }
      await discard(answer)
      const next = this.#nextUrl(location, url)
      if (next.origin !== url.origin) headers = withoutCredentials(headers)
      url = next
    }
    throw new ImageError('REGISTRY_REFUSED', `The registry redirects more than ${HOPS_MAX} times.`)
  }

  #nextUrl(location: string, from: URL): URL {
    const next = URL.parse(location, from.href)
    if (next === null) throw new ImageError('REGISTRY_REFUSED', 'The registry redirects to no URL.')
    if (from.protocol === 'https:' && next.protocol !== 'https:') {
      throw new ImageError(
        'REGISTRY_ADDRESS_FORBIDDEN',
        'The registry redirects from HTTPS to something else.',
      )
    }
    return next
  }

  async #once(call: HttpCall, signal: AbortSignal): Promise<HttpAnswer> {
    const reach = checkUrl(call.url, this.#allowances)
    const dispatcher = this.#agents.get(reach) ?? newAgent(reach)
    this.#agents.set(reach, dispatcher)
    const { statusCode, headers, body } = await request(call.url, {
      method: call.method,
      // Bytes as stored: a digest of something unpacked on the way would be another digest.
      headers: { 'accept-encoding': 'identity', 'user-agent': 'casemate', ...call.headers },
      dispatcher,
      signal,
      ...(call.body === undefined ? {} : { body: call.body }),
    })
    return { status: statusCode, headers, body, url: call.url }
  }
}

const withoutCredentials = (headers: Headers): Headers =>
  Object.fromEntries(Object.entries(headers).filter(([name]) => name !== 'authorization'))
