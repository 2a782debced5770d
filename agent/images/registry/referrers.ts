/**
 * What refers to a manifest (distribution-spec "Listing Referrers"): the API, and where a registry
 * has none the index at the tag `sha256-<hex>`.
 */
/* oxlint-disable no-await-in-loop -- each page names the next */
import type { Canonical } from '../../../policy/canonical.ts'
import type { Digest } from '../../../policy/index.ts'
import { type Descriptor, descriptorMembers, OCI_INDEX, parseDescriptor } from '../descriptor.ts'
import { invalid, listOf, optionalStringOf, parseDocument } from '../document.ts'
import { ImageError } from '../errors.ts'
import { MANIFEST_BYTES_MAX, REFERRER_PAGES_MAX, REFERRERS_MAX } from '../limits.ts'
import type { RegistryClient } from './client.ts'
import { discard, type HttpAnswer, headerOf } from './http.ts'
import { readBody, statusError } from './read.ts'

export interface Referrer extends Descriptor {
  /** As the index says, which nobody signed; null where it says nothing. */
  readonly artifactType: string | null
}

export interface Referrers {
  /** Whether the registry has the API. */
  readonly api: boolean
  readonly referrers: readonly Referrer[]
}

/** Tag of the index that stands in for the API. */
export const fallbackTag = (digest: Digest): string => digest.replace(':', '-')

function parseReferrer(entry: Canonical): Referrer {
  const artifactType = descriptorMembers(entry, 'a referrer')['artifactType']
  const descriptor = parseDescriptor(entry, 'a referrer')
  return {
    ...descriptor,
    artifactType: optionalStringOf(artifactType, 'the artifact type of a referrer'),
  }
}

function parseReferrers(bytes: Uint8Array): readonly Referrer[] {
  const what = 'the list of referrers'
  const document = parseDocument(bytes, MANIFEST_BYTES_MAX, what, ['mediaType', 'manifests'])
  const mediaType = optionalStringOf(document['mediaType'], `the media type of ${what}`)
  if (mediaType !== null && mediaType !== OCI_INDEX) throw invalid(`${what} is not an index`)
  return listOf(document['manifests'], 'referrers', REFERRERS_MAX).map(parseReferrer)
}

/** The next page (RFC 8288 Link), which must be on the same registry. */
function nextPage(answer: HttpAnswer): URL | null {
  const target = /^\s*<([^>]{1,2048})>\s*;[^,]*\brel="?next"?/u.exec(headerOf(answer, 'link') ?? '')
  if (target === null) return null
  const url = URL.parse(target[1] ?? '', answer.url.href)
  if (url === null || url.origin !== answer.url.origin) {
    throw invalid('the list of referrers goes on at another place')
  }
  return url
}

async function readApi(client: RegistryClient, first: URL): Promise<readonly Referrer[] | null> {
  const found: Referrer[] = []
  let url: URL | null = first
  for (let page = 0; url !== null; page += 1) {
    const answer = await client.ask({ method: 'GET', url, headers: { accept: OCI_INDEX } })
    if (page === 0 && answer.status === 404) {
      await discard(answer)
      return null
    }
    if (answer.status !== 200) throw await statusError(answer, 'list of referrers')
    url = nextPage(answer)
    found.push(...parseReferrers(await readBody(answer, MANIFEST_BYTES_MAX, 'a list of referrers')))
    if (found.length > REFERRERS_MAX || (url !== null && page + 1 >= REFERRER_PAGES_MAX)) {
      throw new ImageError('IMAGE_TOO_LARGE', `The image has more than ${REFERRERS_MAX} referrers.`)
    }
  }
  return found
}

/** Everything that says it refers to `digest`; only asked, not believed, to be of `artifactType`. */
export async function listReferrers(
  client: RegistryClient,
  digest: Digest,
  artifactType: string,
): Promise<Referrers> {
  const url = client.url(`referrers/${digest}`)
  url.searchParams.set('artifactType', artifactType)
  const found = await readApi(client, url)
  if (found !== null) return { api: true, referrers: found }
  const index = await client.manifest(fallbackTag(digest))
  if (index === null) return { api: false, referrers: [] }
  if (index.contentType !== OCI_INDEX) throw invalid('the list of referrers is not an index')
  return { api: false, referrers: parseReferrers(index.bytes) }
}
