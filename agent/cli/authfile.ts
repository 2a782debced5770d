/**
 * Credentials out of a file that `skopeo login --authfile`, `podman login` or `docker login` wrote
 * (containers-auth.json(5), Docker's config.json). Never on the command line: arguments are seen by
 * everybody on the machine.
 */
import { parseReference } from '../images/reference.ts'
import { readNamed, UsageError } from './arguments.ts'

/** A member of the launch's body, and half of Credentials. */
export interface RegistryLogin {
  readonly username: string
  readonly password: string
}

const HUB = 'docker.io'
const memberOf = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null && Object.hasOwn(value, name)
    ? Reflect.get(value, name)
    : undefined

/** The file's words stay out of the error: they are secrets. */
function parse(file: string): unknown {
  const text = readNamed('--authfile', file)
  try {
    const document: unknown = JSON.parse(text)
    return document
  } catch {
    throw new UsageError(`--authfile ${file} is no JSON, as \`skopeo login --authfile\` writes it`)
  }
}

/** Docker's own keys are URLs, and the Hub's is of an old version of its API. */
function nameOf(key: string): string {
  const name = /^https?:\/\//u.test(key) ? (URL.parse(key)?.host ?? key) : key
  return name === 'index.docker.io' ? HUB : name
}

/** The repository, what it lies in, and the registry: the most specific first. */
function scopesOf(reference: string): readonly string[] {
  const { registry, repository } = parseReference(reference)
  const parts = repository.split('/')
  const within = parts.map((_, index) => parts.slice(0, parts.length - index).join('/'))
  return [...within.map((names) => `${registry}/${names}`), registry]
}

function loginOf(entry: unknown, file: string, scope: string): RegistryLogin {
  if (memberOf(entry, 'identitytoken') !== undefined) {
    throw new UsageError(
      `--authfile ${file} has an identity token for ${scope}: log in with a password`,
    )
  }
  const auth = memberOf(entry, 'auth')
  if (typeof auth !== 'string' || auth === '') {
    throw new UsageError(
      `--authfile ${file} has no password for ${scope}: credential helpers are not run`,
    )
  }
  const text = Buffer.from(auth, 'base64').toString('utf8').replace(/\0+$/u, '')
  const colon = text.indexOf(':')
  if (colon < 1) throw new UsageError(`--authfile ${file} has no username:password for ${scope}`)
  return { username: text.slice(0, colon), password: text.slice(colon + 1) }
}

/** The login for the registry of a reference; null when the file has none: the image may be public. */
export function loginFor(file: string, reference: string): RegistryLogin | null {
  const document = parse(file)
  const auths = memberOf(document, 'auths')
  const entries = typeof auths === 'object' && auths !== null ? Object.entries(auths) : []
  const byName = new Map<string, unknown>(entries.map(([key, entry]) => [nameOf(key), entry]))
  const scopes = scopesOf(reference)
  const found = scopes.find((scope) => byName.has(scope))
  if (found !== undefined) return loginOf(byName.get(found), file, found)
  const helped = scopes.find(
    (scope) => memberOf(memberOf(document, 'credHelpers'), scope) !== undefined,
  )
  return helped === undefined ? null : loginOf(null, file, helped)
}
