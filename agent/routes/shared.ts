/** What routes have in common: parameters that are nouns, pages, and who is asking from where. */
import type { ServerResponse } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { type PodId, parsePodId, parseTenantId, type TenantId } from '../../policy/index.ts'
import type { Pod, TenantScope, Tenants } from '../../tenants/index.ts'
import { notFound } from '../errors.ts'
import { callerOf } from '../identity.ts'
import type { LaunchPorts } from '../tasks/launch.ts'
import type { Origin } from '../tasks/record-parts.ts'
import { type PodView, podView } from './views.ts'

export const PAGE_DEFAULT = 100
export const PAGE_MAX = 1000

/** A noun in a path: what is none cannot exist. @throws ApiError NOT_FOUND */
function parsed<T>(parse: (input: unknown) => T, input: string): T {
  try {
    return parse(input)
  } catch {
    throw notFound()
  }
}

export const podIdOf = (input: string): PodId => parsed(parsePodId, input)
export const tenantIdOf = (input: string): TenantId => parsed(parseTenantId, input)

/**
 * The newest start of the pod that a path names: by name, by the id of the pod or any of its starts, or by the beginning
 * of one.
 * @throws TenantsError POD_NOT_FOUND, POD_AMBIGUOUS
 */
export async function startOf(tenants: Tenants, scope: TenantScope, name: string): Promise<Pod> {
  return await tenants.findPod(scope, name)
}

/** One start of it: the one with the number, or the newest. @param attempt digits, by the schema */
export async function chosenStart(
  tenants: Tenants,
  scope: TenantScope,
  { name, attempt }: { readonly name: string; readonly attempt: string | undefined },
): Promise<Pod> {
  const newest = await startOf(tenants, scope, name)
  if (attempt === undefined) return newest
  const starts = await tenants.listStarts(scope, newest.id)
  const chosen = starts.find((start) => start.attempt === Number(attempt))
  if (chosen === undefined) throw notFound()
  return chosen
}

/** The pod with what the store does not know of it. @param pod its newest start */
export const shown = (
  { pauses, watch }: Pick<LaunchPorts, 'pauses' | 'watch'>,
  pod: Pod,
): PodView => podView(pod, pauses.has(pod.id), watch.health.of(pod.id))

/** The scope of the path's tenant. @throws the same NOT_FOUND for another's and for nobody's */
export async function scopeOf(
  tenants: Tenants,
  request: FastifyRequest,
  tenant: string,
): Promise<TenantScope> {
  return await tenants.scope(callerOf(request), tenantIdOf(tenant))
}

/** @param limit digits, by the schema */
export const limitOf = (limit: string | undefined): number =>
  Math.min(Math.max(Number(limit ?? PAGE_DEFAULT), 1), PAGE_MAX)

/** The unix socket has no address. */
export const originOf = (request: FastifyRequest): Origin => ({
  address: request.ip === '' ? null : (request.ip ?? null),
})

/** Aborted when the caller has gone, or the answer is complete. */
export function goneOf(answer: ServerResponse): AbortSignal {
  const gone = new AbortController()
  // Who went while it was looked up who it is says so no second time.
  if (answer.closed) gone.abort()
  else answer.once('close', () => gone.abort())
  return gone.signal
}
