/** The tokens that were issued: what is not here, or was revoked here, opens nothing. */
import type { TenantId } from '../../policy/index.ts'
import type { TenantScope } from '../scope.ts'
import { tenantNotFound } from '../scope.ts'
import type { Store, TokenRow } from './tables.ts'

/** A token as `token list` shows it; the token itself is nowhere kept. */
export interface IssuedToken {
  readonly jti: string
  /** The identity's name within the tenant. */
  readonly name: string
  readonly issuedMs: number
  readonly expiresMs: number
  readonly revokedMs: number | null
}

const issuedTokenOf = (row: TokenRow): IssuedToken => ({
  jti: row.jti,
  name: row.name,
  issuedMs: row.issued_ms,
  expiresMs: row.expires_ms,
  revokedMs: row.revoked_ms,
})

/** @throws TenantsError TENANT_NOT_FOUND */
export async function insertToken(
  store: Store,
  scope: TenantScope,
  token: IssuedToken,
): Promise<void> {
  await store.transaction().execute(async (transaction) => {
    // A row is not needed past its token's end: an expired token is refused before it is looked up.
    await transaction
      .deleteFrom('tokens')
      .where('expires_ms', '<', token.issuedMs - KEPT_MS)
      .execute()
    const tenant = await transaction
      .selectFrom('tenants')
      .select('id')
      .where('id', '=', scope.tenant)
      .executeTakeFirst()
    if (tenant === undefined) throw tenantNotFound()
    await transaction
      .insertInto('tokens')
      .values({
        jti: token.jti,
        tenant: scope.tenant,
        name: token.name,
        issued_ms: token.issuedMs,
        expires_ms: token.expiresMs,
      })
      .execute()
  })
}

/** An hour more than a token's life, so that clock tolerance never meets a missing row. */
const KEPT_MS = 3_600_000

/** Whether the token was issued here for this tenant and not revoked. */
export async function isLive(store: Store, tenant: TenantId, jti: string): Promise<boolean> {
  const row = await store
    .selectFrom('tokens')
    .select('jti')
    .where('jti', '=', jti)
    .where('tenant', '=', tenant)
    .where('revoked_ms', 'is', null)
    .executeTakeFirst()
  return row !== undefined
}

export async function selectTokens(
  store: Store,
  scope: TenantScope,
): Promise<readonly IssuedToken[]> {
  const rows = await store
    .selectFrom('tokens')
    .selectAll()
    .where('tenant', '=', scope.tenant)
    .orderBy('issued_ms')
    .orderBy('jti')
    .execute()
  return rows.map(issuedTokenOf)
}

/** Revokes a token from now on; true when it was live until now. */
export async function revokeToken(
  store: Store,
  scope: TenantScope,
  jti: string,
  nowMs: number,
): Promise<boolean> {
  const row = await store
    .updateTable('tokens')
    .set({ revoked_ms: nowMs })
    .where('jti', '=', jti)
    .where('tenant', '=', scope.tenant)
    .where('revoked_ms', 'is', null)
    .returning('jti')
    .executeTakeFirst()
  return row !== undefined
}
