/**
 * Answers a registry's challenge: basic credentials, or a token from the service it names
 * (distribution's token specification; OAuth2 refresh for identity tokens).
 *
 * The registry chooses the service, so credentials go only to the registry's own host or to one the
 * provider vouches for; other services are asked without them.
 */
import { parseDocument } from '../document.ts'
import { ImageError, show } from '../errors.ts'
import { TOKEN_BYTES_MAX } from '../limits.ts'
import type { RegistryAllowance } from './address.ts'
import { type Challenge, parseChallenges } from './challenge.ts'
import { type HttpAnswer, headerOf, type RegistryHttp } from './http.ts'
import { readBody, statusError } from './read.ts'

export type Credentials =
  | { readonly kind: 'password'; readonly username: string; readonly password: string }
  | { readonly kind: 'identity-token'; readonly token: string }

export interface AuthorizeContext {
  readonly http: RegistryHttp
  readonly allowances: readonly RegistryAllowance[]
  readonly credentials: Credentials | null
  /** Origins of token services that belong to the registry. */
  readonly ownOrigins: readonly string[]
  /** `repository:name:pull` or `...:pull,push`; ours, not what the registry suggests. */
  readonly scope: string
}

const TOKEN_MS = 15_000

const basic = ({ username, password }: { username: string; password: string }): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

const refuse = (message: string): ImageError => new ImageError('REGISTRY_REFUSED', message)

/** Hosts that may see the credentials: the registry's own, and those the provider lists. */
const mayHaveCredentials = (realm: URL, { ownOrigins, allowances }: AuthorizeContext): boolean =>
  ownOrigins.includes(realm.origin) || allowances.some(({ host }) => host === realm.host)

function tokenOf(body: Buffer): string {
  const names = ['token', 'access_token']
  const members = parseDocument(body, TOKEN_BYTES_MAX, 'the answer of the token service', names)
  const token = members['token'] ?? members['access_token']
  if (typeof token === 'string' && /^[\x21-\x7e]{1,16384}$/u.test(token)) return token
  throw refuse('The token service of the registry sent no token.')
}

async function fetchToken(
  realm: URL,
  service: string | null,
  context: AuthorizeContext,
  credentials: Credentials | null,
): Promise<string> {
  const query = new URLSearchParams({ scope: context.scope })
  if (service !== null) query.set('service', service)
  let answer: HttpAnswer
  if (credentials?.kind === 'identity-token') {
    query.set('grant_type', 'refresh_token')
    query.set('client_id', 'casemate')
    query.set('refresh_token', credentials.token)
    const headers = { 'content-type': 'application/x-www-form-urlencoded' }
    const body = Buffer.from(query.toString())
    answer = await context.http.send({
      method: 'POST',
      url: realm,
      headers,
      body,
      timeoutMs: TOKEN_MS,
    })
  } else {
    for (const [name, value] of query) realm.searchParams.set(name, value)
    const headers = credentials === null ? {} : { authorization: basic(credentials) }
    answer = await context.http.send({ method: 'GET', url: realm, headers, timeoutMs: TOKEN_MS })
  }
  if (answer.status !== 200) throw await statusError(answer, 'a token')
  return tokenOf(await readBody(answer, TOKEN_BYTES_MAX, 'a token'))
}

async function bearer(challenge: Challenge, context: AuthorizeContext): Promise<string> {
  const realm = URL.parse(challenge.parameters.get('realm') ?? '')
  if (realm === null) throw refuse('The registry names no token service.')
  const permitted = mayHaveCredentials(realm, context)
  if (context.credentials !== null && !permitted) {
    throw refuse(
      `The registry wants the credentials sent to ${show(realm.host)}. The provider can list that host.`,
    )
  }
  const service = challenge.parameters.get('service') ?? null
  return `Bearer ${await fetchToken(realm, service, context, context.credentials)}`
}

/**
 * The Authorization header that answers a 401, or null when nothing can be said to it.
 * @throws ImageError REGISTRY_REFUSED, REGISTRY_UNAVAILABLE, REGISTRY_ADDRESS_FORBIDDEN
 */
export async function authorize(
  answer: HttpAnswer,
  context: AuthorizeContext,
): Promise<string | null> {
  const challenges = parseChallenges(headerOf(answer, 'www-authenticate') ?? '')
  const token = challenges.find(({ scheme }) => scheme === 'bearer')
  if (token !== undefined) return bearer(token, context)
  const { credentials } = context
  if (!challenges.some(({ scheme }) => scheme === 'basic')) return null
  return credentials?.kind === 'password' ? basic(credentials) : null
}
