/** Descriptors and media types of OCI and Docker images (image-spec descriptor.md, media-types.md). */
import type { Canonical } from '../../policy/canonical.ts'
import type { Digest } from '../../policy/index.ts'
import {
  digestOf,
  invalid,
  type Members,
  objectOf,
  optionalStringOf,
  sizeOf,
  stringOf,
} from './document.ts'

export const OCI_INDEX = 'application/vnd.oci.image.index.v1+json'
export const OCI_MANIFEST = 'application/vnd.oci.image.manifest.v1+json'
export const DOCKER_LIST = 'application/vnd.docker.distribution.manifest.list.v2+json'
export const DOCKER_MANIFEST = 'application/vnd.docker.distribution.manifest.v2+json'
export const OCI_CONFIG = 'application/vnd.oci.image.config.v1+json'
export const DOCKER_CONFIG = 'application/vnd.docker.container.image.v1+json'

export const INDEX_TYPES: ReadonlySet<string> = new Set([OCI_INDEX, DOCKER_LIST])
export const MANIFEST_TYPES: ReadonlySet<string> = new Set([OCI_MANIFEST, DOCKER_MANIFEST])

export interface Descriptor {
  readonly mediaType: string
  readonly digest: Digest
  readonly size: number
}

const KNOWN = ['mediaType', 'digest', 'size', 'platform', 'urls', 'annotations', 'artifactType']

/** The members of a descriptor, for readers of what not all descriptors have. */
export const descriptorMembers = (value: Canonical | undefined, what: string): Members =>
  objectOf(value, what, KNOWN)

export function parseDescriptor(value: Canonical | undefined, what: string): Descriptor {
  const members = descriptorMembers(value, what)
  // Never followed: a descriptor must not choose where bytes come from (CVE-2020-15157).
  if (members['urls'] !== undefined) throw invalid(`${what} names URLs of its own`)
  return {
    mediaType: stringOf(members['mediaType'], `the media type of ${what}`),
    digest: digestOf(members['digest'], `the digest of ${what}`),
    size: sizeOf(members['size'], `the size of ${what}`),
  }
}

/** Annotations of a manifest or descriptor: strings by name. */
export function annotationsOf(
  value: Canonical | undefined,
  what: string,
): ReadonlyMap<string, string> {
  const found = new Map<string, string>()
  if (value === undefined || value === null) return found
  for (const [name, text] of Object.entries(objectOf(value, what, []))) {
    found.set(name, stringOf(text, `an annotation of ${what}`))
  }
  return found
}

/**
 * What a document is: its own `mediaType` and the registry's Content-Type must agree, or the same
 * bytes are an index to one reader and a manifest to another (CVE-2021-41190).
 */
export function mediaTypeOf(document: Members, contentType: string, what: string): string {
  const own = optionalStringOf(document['mediaType'], `the media type of ${what}`)
  if (own !== null && own !== contentType) {
    throw invalid(
      `${what} says it is ${own.slice(0, 100)}, the registry says ${contentType.slice(0, 100)}`,
    )
  }
  return contentType
}
