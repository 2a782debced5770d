/**
 * How many requests a minute, and of whom.
 *
 * Everybody comes to the listener on loopback, so an address is not one caller: counted by address,
 * one tenant would use up everybody's requests. Who is known is counted by name: a local user by what
 * the kernel says, a token that was good lately by its subject, before its signature is checked again.
 * What is left are strangers, bad tokens above all, and they are counted by address. Theirs is the
 * larger number, because they may share the address with a token that is used for the first time: it
 * only has to keep signatures from being checked without end, and a flood below it locks nobody out.
 */
import { createHash } from 'node:crypto'
import type { RateLimitPluginOptions } from '@fastify/rate-limit'
import type { FastifyRequest } from 'fastify'
import { peerOf } from '../native/addon.ts'
import { ApiError } from './errors.ts'
import { isOpen } from './identity.ts'

const MINUTE_MS = 60_000
/** A stranger's address has so many times the requests of one known caller. */
export const STRANGERS_FACTOR = 10
/** Beyond it the one that was used longest ago is a stranger's again, and loses nothing else. */
const KNOWN_TOKENS_MAX = 4096
/** Counters at once; beyond it the least used one begins anew. */
const COUNTERS_MAX = 8192

/** Tokens that were good when they were last looked at, by digest: nothing here opens anything. */
export class KnownTokens {
  readonly #subjects = new Map<string, string>()

  static #digest(header: string): string {
    return createHash('sha256').update(header).digest('base64')
  }

  /** The subject of the token in an Authorization header; null for a stranger's. */
  subjectOf(header: string): string | null {
    return this.#subjects.get(KnownTokens.#digest(header)) ?? null
  }

  remember(header: string, subject: string): void {
    const digest = KnownTokens.#digest(header)
    // Deleted first, so that the order is that of use.
    this.#subjects.delete(digest)
    this.#subjects.set(digest, subject)
    const oldest = this.#subjects.keys().next().value
    if (this.#subjects.size > KNOWN_TOKENS_MAX && oldest !== undefined) {
      this.#subjects.delete(oldest)
    }
  }

  /** It expired or was revoked: who still sends it must not use up its owner's requests. */
  forget(header: string): void {
    this.#subjects.delete(KnownTokens.#digest(header))
  }
}

/** All of 127.0.0.0/8 is this host: who may choose among its addresses must not be many strangers. */
const addressOf = (ip: string): string => (/^(?:::ffff:)?127\./u.test(ip) ? '127.0.0.0/8' : ip)

interface Counted {
  readonly key: string
  readonly stranger: boolean
}

function countedAs(
  request: FastifyRequest,
  transport: 'unix' | 'https',
  tokens: KnownTokens,
): Counted {
  const header = request.headers.authorization
  // Where nobody is identified, a token that was revoked would never be found out.
  const subject = header === undefined || isOpen(request) ? null : tokens.subjectOf(header)
  if (subject !== null) return { key: `subject:${subject}`, stranger: false }
  // Other headers do not count: they lie.
  if (transport === 'https') return { key: `ip:${addressOf(request.ip)}`, stranger: true }
  const { uid } = peerOf(request.raw.socket)
  return { key: `${header === undefined ? 'uid' : 'peer'}:${uid}`, stranger: header !== undefined }
}

/** Options of @fastify/rate-limit, to be used as a hook before identity and for all routes. */
export function rateLimits(
  transport: 'unix' | 'https',
  requestsPerMinute: number,
  tokens: KnownTokens,
): RateLimitPluginOptions {
  const counted = (request: FastifyRequest): Counted => countedAs(request, transport, tokens)
  return {
    global: false,
    cache: COUNTERS_MAX,
    timeWindow: MINUTE_MS,
    keyGenerator: (request) => counted(request).key,
    max: (request) => requestsPerMinute * (counted(request).stranger ? STRANGERS_FACTOR : 1),
    errorResponseBuilder: (request, { max, after }) => {
      const whose = counted(request).stranger
        ? 'from one address without a token that was good lately'
        : 'of one caller'
      return new ApiError(
        'TOO_MANY_REQUESTS',
        `At most ${max} requests a minute ${whose}. Wait ${after}.`,
      )
    },
  }
}
