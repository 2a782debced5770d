/**
 * Access tokens: JWTs in the profile of RFC 9068, signed with EdDSA by this host and for this host
 * only. Every option of the verification is pinned here; jose's defaults leave audience, issuer,
 * `typ` and a future `iat` unchecked.
 */
import { createHash, type KeyObject, randomUUID } from 'node:crypto'
import { decodeProtectedHeader, errors, type JWTPayload, jwtVerify, SignJWT } from 'jose'
import { BadNoun, type Branded, parseTenantId, type TenantId } from '../../policy/index.ts'
import { TenantsError, type TenantsErrorCode } from '../errors.ts'

export const TOKEN_BYTES_MAX = 8192
export const TOKEN_MS_DEFAULT = 3_600_000
export const TOKEN_MS_MAX = 86_400_000
const CLOCK_TOLERANCE_S = 30
const TYP = 'at+jwt'
const SCOPE = 'tenant'

/** The name of an identity within its tenant: `ci`, `alice`. */
export type IdentityName = Branded<string, 'IdentityName'>
const isIdentityName = (input: unknown): input is IdentityName =>
  typeof input === 'string' && /^[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?$/u.test(input)

/** @throws BadNoun */
export function parseIdentityName(input: unknown): IdentityName {
  if (isIdentityName(input)) return input
  throw new BadNoun(
    'identity name',
    'must be 1 to 63 of a-z, 0-9, ., _ and -, ending in one of the first two',
  )
}

/** Who issues and who accepts; both are configuration, compared byte for byte. */
export interface TokenAuthority {
  readonly issuer: string
  readonly audience: string
  readonly privateKey: KeyObject
  readonly publicKey: KeyObject
}

export interface Grant {
  readonly tenant: TenantId
  readonly name: IdentityName
  readonly issuedMs: number
  readonly lifetimeMs: number
}

/** What a token that passed says. Whether it was revoked is the store's to say. */
export interface TokenClaims {
  readonly tenant: TenantId
  readonly subject: string
  readonly jti: string
  readonly expiresMs: number
}

/** RFC 7638 would do as well; this one needs no JSON. */
const kidOf = (publicKey: KeyObject): string =>
  createHash('sha256')
    .update(publicKey.export({ type: 'spki', format: 'der' }))
    .digest('base64url')

/** @throws BadNoun for a lifetime outside 1 s to TOKEN_MS_MAX */
export async function signToken(
  authority: TokenAuthority,
  grant: Grant,
): Promise<TokenClaims & { readonly token: string }> {
  const { tenant, name, issuedMs, lifetimeMs } = grant
  if (!Number.isInteger(lifetimeMs) || lifetimeMs < 1000 || lifetimeMs > TOKEN_MS_MAX) {
    throw new BadNoun('token lifetime', `must be 1000 to ${TOKEN_MS_MAX} ms`)
  }
  const issued = Math.floor(issuedMs / 1000)
  const expires = issued + Math.floor(lifetimeMs / 1000)
  const jti = randomUUID()
  const subject = `${tenant}/${name}`
  const token = await new SignJWT({ client_id: subject, scope: SCOPE, tenant })
    .setProtectedHeader({ alg: 'EdDSA', typ: TYP, kid: kidOf(authority.publicKey) })
    .setIssuer(authority.issuer)
    .setAudience(authority.audience)
    .setSubject(subject)
    .setIssuedAt(issued)
    .setExpirationTime(expires)
    .setJti(jti)
    .sign(authority.privateKey)
  return { tenant, subject, jti, expiresMs: expires * 1000, token }
}

/** @throws TenantsError TOKEN_TOO_LARGE, TOKEN_EXPIRED, TOKEN_INVALID */
export async function readToken(
  authority: TokenAuthority,
  token: string,
  nowMs: number,
): Promise<TokenClaims> {
  // Before jose: it would decode and hash a megabyte that cannot be one of ours.
  if (token.length > TOKEN_BYTES_MAX) {
    throw refused('TOKEN_TOO_LARGE', `is larger than ${TOKEN_BYTES_MAX} bytes`)
  }
  try {
    requireKid(authority, token)
    const { payload } = await jwtVerify(token, authority.publicKey, {
      algorithms: ['EdDSA'],
      audience: authority.audience,
      clockTolerance: CLOCK_TOLERANCE_S,
      currentDate: new Date(nowMs),
      issuer: authority.issuer,
      // Also what refuses an `iat` in the future.
      maxTokenAge: TOKEN_MS_MAX / 1000,
      requiredClaims: ['exp', 'iat', 'jti', 'sub', 'client_id', 'scope', 'tenant'],
      typ: TYP,
    })
    return claimsOf(authority, payload)
  } catch (cause) {
    if (cause instanceof errors.JWTExpired) throw refused('TOKEN_EXPIRED', 'has expired', { cause })
    // One sentence for all of them: which check failed helps only who forges.
    throw refused('TOKEN_INVALID', 'is not one that this host accepts', { cause })
  }
}

const refused = (code: TenantsErrorCode, what: string, options: ErrorOptions = {}): TenantsError =>
  new TenantsError(code, `The access token ${what}. Get a new one.`, {}, options)

/** jose alone takes a token without `kid` when only one key could be meant. */
function requireKid(authority: TokenAuthority, token: string): void {
  const { kid } = decodeProtectedHeader(token)
  if (kid !== kidOf(authority.publicKey)) throw new TypeError('kid is missing or not ours')
}

/** jose takes a list of audiences with others beside us in it. */
function claimsOf(authority: TokenAuthority, payload: JWTPayload): TokenClaims {
  const { aud, sub, jti, exp, iat } = payload
  const tenant = parseTenantId(payload['tenant'])
  if (aud !== authority.audience) throw new TypeError('aud is a list')
  if (payload['scope'] !== SCOPE) throw new TypeError('scope is another')
  if (sub === undefined || jti === undefined || exp === undefined || iat === undefined) {
    throw new TypeError('a claim is missing')
  }
  if (payload['client_id'] !== sub) throw new TypeError('client_id is not the subject')
  requireSubject(sub, tenant)
  if ((exp - iat) * 1000 > TOKEN_MS_MAX) throw new TypeError('the lifetime is too long')
  return { tenant, subject: sub, jti, expiresMs: exp * 1000 }
}

function requireSubject(subject: string, tenant: TenantId): void {
  const [owner, name, ...rest] = subject.split('/')
  if (owner !== tenant || rest.length > 0) throw new TypeError('sub is not of the tenant')
  parseIdentityName(name)
}
