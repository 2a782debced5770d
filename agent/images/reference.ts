/**
 * Image references, strictly: `[host[:port]/]repository[:tag][@sha256:...]`, the grammar of the OCI
 * distribution specification. Read once; everything after this goes by the parts.
 */
import { type Digest, parseDigest } from '../../policy/index.ts'
import { ImageError } from './errors.ts'

export interface Reference {
  /** Host and port as written in the reference: `registry.example.com:5000`, `docker.io`. */
  readonly registry: string
  /** `library/busybox`, not `busybox`. */
  readonly repository: string
  /** null only when there is a digest. */
  readonly tag: string | null
  readonly digest: Digest | null
}

export const REFERENCE_CHARACTERS_MAX = 512
export const REPOSITORY_CHARACTERS_MAX = 255

const SHORT_NAMES_REGISTRY = 'docker.io'
const DEFAULT_TAG = 'latest'

const label = '[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?'
const port = '(?::(?:[1-9][0-9]{0,4}))?'
const host = new RegExp(`^(?:${label}(?:\\.${label})*|\\[[0-9a-f:.]{2,45}\\])${port}$`, 'u')
const component = '[a-z0-9]+(?:(?:\\.|_|__|-+)[a-z0-9]+)*'
const repositories = new RegExp(`^${component}(?:/${component})*$`, 'u')
const tags = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/u

const bad = (why: string): ImageError =>
  new ImageError('IMAGE_REFERENCE_INVALID', `The image reference is not valid: ${why}.`)

/** Takes `separator` and what follows it off the end; null when it is not there. */
function cut(text: string, at: number): readonly [string, string | null] {
  return at === -1 ? [text, null] : [text.slice(0, at), text.slice(at + 1)]
}

/** The first part names a registry when it looks like a host, as all clients have it. */
function splitRegistry(name: string): readonly [string, string] {
  const [first, rest] = cut(name, name.indexOf('/'))
  if (rest !== null && (/[.:]/u.test(first) || first === 'localhost')) return [first, rest]
  return [SHORT_NAMES_REGISTRY, rest === null ? `library/${name}` : name]
}

function digestOf(text: string): Digest {
  try {
    return parseDigest(text)
  } catch {
    throw bad('the digest must be sha256: and 64 lower-case hex digits')
  }
}

function checkRegistry(registry: string): void {
  const portNumber = Number(/:([0-9]+)$/u.exec(registry)?.[1] ?? 1)
  if (!host.test(registry) || portNumber > 65_535) {
    throw bad('the registry must be a lower-case host name, with a port if need be')
  }
}

function checkRepository(repository: string): void {
  if (!repositories.test(repository) || repository.length > REPOSITORY_CHARACTERS_MAX) {
    throw bad('the repository must be lower-case words joined by / . _ or -')
  }
}

function checkTag(tag: string | null): void {
  if (tag !== null && !tags.test(tag)) {
    throw bad('the tag must be 1 to 128 letters, digits, _ . and -')
  }
}

/**
 * Reads a reference and expands it fully: registry, `library/` and the tag `latest`. A reference
 * with a tag and a digest goes by the digest.
 * @throws ImageError IMAGE_REFERENCE_INVALID
 */
export function parseReference(text: string): Reference {
  if (text.length > REFERENCE_CHARACTERS_MAX) throw bad('it is too long')
  const [named, digestText] = cut(text, text.indexOf('@'))
  const colon = named.lastIndexOf(':')
  const [name, tag] = cut(named, colon > named.lastIndexOf('/') ? colon : -1)
  const digest = digestText === null ? null : digestOf(digestText)
  const [registry, repository] = splitRegistry(name)
  checkRegistry(registry)
  checkRepository(repository)
  checkTag(tag)
  return { registry, repository, tag: tag ?? (digest === null ? DEFAULT_TAG : null), digest }
}

/** `registry/repository`: what rules match and what cosign signs as docker-reference. */
export const nameOf = (reference: Pick<Reference, 'registry' | 'repository'>): string =>
  `${reference.registry}/${reference.repository}`

/** The reference, fully expanded; parseReference reads it back. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === null ? '' : `:${reference.tag}`
  const digest = reference.digest === null ? '' : `@${reference.digest}`
  return `${nameOf(reference)}${tag}${digest}`
}
