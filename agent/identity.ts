/**
 * Who calls. Operators come through the unix socket and are known by what the kernel says of their
 * process; tenants bring a bearer token. Nothing a caller writes can make it an operator.
 */
import type { Socket } from 'node:net'
import type { FastifyRequest } from 'fastify'
import { peerOf } from '../native/addon.ts'
import { type Caller, operatorFromPeer } from '../tenants/scope.ts'
import { ApiError } from './errors.ts'

/** RFC 9068 tokens of ours are under 1 KiB; longer ones are not looked at. */
const TOKEN_CHARACTERS_MAX = 4096

export interface IdentityPorts {
  /** Which listener the request came through. */
  readonly transport: 'unix' | 'https'
  /** User ids beside root whose processes are operators. */
  readonly operators: ReadonlySet<number>
  /** @throws TenantsError TOKEN_*, when the token is not a good one of ours, now */
  readonly verifyToken: (token: string) => Promise<Caller>
}

/** Routes that answer before anybody is identified. */
const open: ReadonlySet<string> = new Set(['/v1/health', '/v1/openapi.json', '/v1/version'])

export const isOpen = (request: FastifyRequest): boolean => open.has(request.routeOptions.url ?? '')

const unauthenticated = (sentence: string): ApiError => new ApiError('UNAUTHENTICATED', sentence)

const scheme = /^Bearer ([A-Za-z0-9._~+/=-]+)$/u

function tokenOf(header: string): string {
  const token = header.length <= TOKEN_CHARACTERS_MAX ? scheme.exec(header)?.[1] : undefined
  if (token !== undefined) return token
  throw unauthenticated('The Authorization header must be "Bearer" and one access token.')
}

/** Whether an operator's process is at the other end; one that cannot be told is not. */
export function isOperator(socket: Socket, { operators }: IdentityPorts): boolean {
  try {
    return operatorFromPeer(peerOf(socket).uid, operators) !== null
  } catch {
    return false
  }
}

function byPeer(request: FastifyRequest, operators: ReadonlySet<number>): Caller {
  const { uid } = peerOf(request.raw.socket)
  const caller = operatorFromPeer(uid, operators)
  if (caller !== null) return caller
  throw unauthenticated(
    `User id ${uid} is no operator of this host; use an access token, or ask root to name it as one.`,
  )
}

/** @throws ApiError UNAUTHENTICATED; TenantsError TOKEN_* */
export async function identify(request: FastifyRequest, ports: IdentityPorts): Promise<Caller> {
  const header = request.headers.authorization
  if (header !== undefined) return await ports.verifyToken(tokenOf(header))
  if (ports.transport === 'unix') return byPeer(request, ports.operators)
  throw unauthenticated('This listener needs an access token in the Authorization header.')
}

/** Callers of requests in flight. A map of our own, so that no plugin can put one in. */
const callers = new WeakMap<FastifyRequest, Caller>()

export const remember = (request: FastifyRequest, caller: Caller): void => {
  callers.set(request, caller)
}

/** null for a request that nobody identified. */
export const callerIn = (request: FastifyRequest): Caller | null => callers.get(request) ?? null

/** @throws ApiError UNAUTHENTICATED for a request that nobody identified */
export function callerOf(request: FastifyRequest): Caller {
  const caller = callerIn(request)
  if (caller !== null) return caller
  throw unauthenticated('This needs an access token.')
}
