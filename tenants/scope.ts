/**
 * Who calls, and which tenant's data the call may touch. Every function over a tenant's data takes
 * a TenantScope, and a scope is made from a caller in one place, so no route can forget the check.
 */
import type { Branded, TenantId } from '../policy/index.ts'
import { TenantsError } from './errors.ts'

/** Who sent a request, after authentication. */
export type Caller =
  | {
      readonly kind: 'tenant'
      readonly tenant: TenantId
      /** `<tenant>/<identity name>`. */
      readonly subject: string
      readonly jti: string
      readonly expiresMs: number
    }
  /** A local user whom the unix socket's peer credentials name as an operator. */
  | { readonly kind: 'operator'; readonly uid: number }

/** The data of one tenant, and in whose name it is used. Made by tenantScope or systemScope. */
export type TenantScope = Branded<
  { readonly tenant: TenantId; readonly identity: string },
  'TenantScope'
>

/** All tenants. Made by operatorScope or systemScope. */
export type OperatorScope = Branded<{ readonly identity: string }, 'OperatorScope'>

/** The only places that hand out the brands. */
function brandTenantScope(_scope: { tenant: TenantId }): asserts _scope is TenantScope {}
function brandOperatorScope(_scope: { identity: string }): asserts _scope is OperatorScope {}

const scopeFor = (tenant: TenantId, identity: string): TenantScope => {
  const scope = { tenant, identity }
  brandTenantScope(scope)
  return scope
}

/** @throws TenantsError TENANT_NOT_FOUND for another tenant, as if it did not exist */
export function tenantScope(caller: Caller, tenant: TenantId): TenantScope {
  if (caller.kind === 'operator') return scopeFor(tenant, `uid:${caller.uid}`)
  if (caller.tenant !== tenant) throw tenantNotFound()
  return scopeFor(tenant, caller.subject)
}

/** @throws TenantsError OPERATOR_ONLY */
export function operatorScope(caller: Caller): OperatorScope {
  if (caller.kind !== 'operator') {
    throw new TenantsError(
      'OPERATOR_ONLY',
      'Only operators of the host may do this, through its unix socket.',
    )
  }
  const scope = { identity: `uid:${caller.uid}` }
  brandOperatorScope(scope)
  return scope
}

/** For the agent's own bookkeeping, as at exits and after a restart; never made from a request. */
export const systemScope = (tenant: TenantId): TenantScope => scopeFor(tenant, 'system')

/** The same words whether the tenant is another's or nobody's. */
export const tenantNotFound = (): TenantsError =>
  new TenantsError('TENANT_NOT_FOUND', 'There is no such tenant, or you have no access to it.')

/**
 * The operator behind a unix socket's peer credentials, or null when this user is none.
 * Root always is; others by the agent's configuration.
 */
export const operatorFromPeer = (
  uid: number,
  operatorUids: ReadonlySet<number>,
): Extract<Caller, { kind: 'operator' }> | null =>
  uid === 0 || operatorUids.has(uid) ? { kind: 'operator', uid } : null
