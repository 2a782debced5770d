/**
 * Fetches the signatures of an image in both of cosign's storage forms, within caps on number, size
 * and time. A signature that is broken does not fail a good one beside it; a registry that fails
 * does fail the whole, because nobody knows what it would have said.
 */
/* oxlint-disable no-await-in-loop -- one at a time keeps the caps exact */
import type { Canonical } from '../../../policy/canonical.ts'
import type { Digest } from '../../../policy/index.ts'
import {
  annotationsOf,
  type Descriptor,
  descriptorMembers,
  mediaTypeOf,
  OCI_MANIFEST,
  parseDescriptor,
} from '../descriptor.ts'
import {
  digestOf,
  invalid,
  listOf,
  objectOf,
  optionalStringOf,
  parseDocument,
} from '../document.ts'
import { ImageError } from '../errors.ts'
import {
  COLLECT_MS,
  MANIFEST_BYTES_MAX,
  SIGNATURE_BYTES_MAX,
  SIGNATURES_BYTES_MAX,
  SIGNATURES_MAX,
} from '../limits.ts'
import type { ManifestBytes, RegistryClient } from '../registry/client.ts'
import { listReferrers, type Referrer } from '../registry/referrers.ts'
import { BUNDLE_TYPE } from './bundle.ts'
import type { BrokenSignature, FoundSignature } from './found.ts'

export const SIMPLE_SIGNING_TYPE = 'application/vnd.dev.cosign.simplesigning.v1+json'
export const SIGNATURE_ANNOTATION = 'dev.cosignproject.cosign/signature'

/** Tag that holds an image's signatures in the tag form. */
export const signatureTag = (digest: Digest): string => `${digest.replace(':', '-')}.sig`

export interface Collected {
  readonly found: readonly FoundSignature[]
  readonly broken: readonly BrokenSignature[]
}

class Collection {
  readonly found: FoundSignature[] = []
  readonly broken: BrokenSignature[] = []
  readonly #deadline = performance.now() + COLLECT_MS
  #bytes = 0

  add(signature: FoundSignature | BrokenSignature): void {
    if (this.found.length + this.broken.length >= SIGNATURES_MAX) {
      throw new ImageError(
        'IMAGE_TOO_LARGE',
        `The image has more than ${SIGNATURES_MAX} signatures.`,
      )
    }
    if (performance.now() > this.#deadline) {
      throw new ImageError(
        'REGISTRY_UNAVAILABLE',
        `The registry took more than ${COLLECT_MS} ms for the image's signatures. Try again later.`,
      )
    }
    if (!('bytes' in signature)) {
      this.broken.push(signature)
      return
    }
    this.#bytes += signature.bytes.length
    if (this.#bytes > SIGNATURES_BYTES_MAX) {
      const message = `The image's signatures are over ${SIGNATURES_BYTES_MAX} bytes together.`
      throw new ImageError('IMAGE_TOO_LARGE', message)
    }
    this.found.push(signature)
  }
}

const KNOWN = [
  'schemaVersion',
  'mediaType',
  'artifactType',
  'config',
  'layers',
  'subject',
  'manifests',
]

const BROKEN = new Set(['IMAGE_MANIFEST_INVALID', 'IMAGE_DIGEST_MISMATCH', 'IMAGE_UNKNOWN'])

/** Faults of the one signature; faults of the registry, and caps on all of them, go up. */
function brokenDetail(error: unknown): string {
  if (error instanceof ImageError && BROKEN.has(error.code)) return error.message
  throw error
}

/** The blob of a signature, or why it does not count. */
async function fetchSignature(
  client: RegistryClient,
  layer: Descriptor,
  rest: Pick<FoundSignature, 'form' | 'signature'>,
): Promise<FoundSignature | BrokenSignature> {
  const { form } = rest
  const artifact = layer.digest
  if (layer.size > SIGNATURE_BYTES_MAX) {
    return { form, artifact, detail: `It is over ${SIGNATURE_BYTES_MAX} bytes.` }
  }
  try {
    const bytes = await client.blobBytes(layer, SIGNATURE_BYTES_MAX, 'a signature')
    return { ...rest, artifact, bytes }
  } catch (error) {
    return { form, artifact, detail: brokenDetail(error) }
  }
}

export interface SignatureLayer extends Descriptor {
  readonly signature: string | null
}

function parseSignatureLayer(layer: Canonical): SignatureLayer {
  const annotations = descriptorMembers(layer, 'a signature')['annotations']
  const signature = annotationsOf(annotations, 'a signature').get(SIGNATURE_ANNOTATION) ?? null
  const descriptor = parseDescriptor(layer, 'a signature')
  return { ...descriptor, signature }
}

/** Layers of a `.sig` manifest that are signatures. */
export function parseSignatureManifest(manifest: ManifestBytes): readonly SignatureLayer[] {
  const what = 'the manifest of signatures'
  const document = parseDocument(manifest.bytes, MANIFEST_BYTES_MAX, what, KNOWN)
  if (
    mediaTypeOf(document, manifest.contentType, what) !== OCI_MANIFEST ||
    'manifests' in document
  ) {
    throw invalid(`${what} is not an OCI manifest`)
  }
  return listOf(document['layers'], 'signatures', SIGNATURES_MAX).map(parseSignatureLayer)
}

async function collectTag(client: RegistryClient, digest: Digest, into: Collection): Promise<void> {
  const form = 'tag' as const
  const manifest = await client.manifest(signatureTag(digest))
  if (manifest === null) return
  let layers: readonly SignatureLayer[]
  try {
    layers = parseSignatureManifest(manifest)
  } catch (error) {
    const detail = brokenDetail(error)
    return into.add({ form, artifact: manifest.digest, detail })
  }
  for (const layer of layers) {
    if (layer.mediaType !== SIMPLE_SIGNING_TYPE) continue
    into.add(await fetchSignature(client, layer, { form, signature: layer.signature }))
  }
}

/** The bundle's blob in a referrer's manifest, which must say for itself what the index said of it. */
function bundleLayer(manifest: ManifestBytes, digest: Digest): Descriptor {
  const what = 'the manifest of a signature'
  const document = parseDocument(manifest.bytes, MANIFEST_BYTES_MAX, what, KNOWN)
  if (
    mediaTypeOf(document, manifest.contentType, what) !== OCI_MANIFEST ||
    'manifests' in document
  ) {
    throw invalid(`${what} is not an OCI manifest`)
  }
  if (optionalStringOf(document['artifactType'], 'artifactType') !== BUNDLE_TYPE) {
    throw invalid(`${what} is of another type than the list of referrers says`)
  }
  const subject = objectOf(document['subject'], 'subject', ['digest'])
  if (digestOf(subject['digest'], 'the digest of subject') !== digest) {
    throw invalid(`${what} refers to another image`)
  }
  const [layer, ...others] = listOf(document['layers'], 'layers of a signature', 16)
  if (layer === undefined || others.length > 0) throw invalid(`${what} has not exactly one layer`)
  const descriptor = parseDescriptor(layer, 'a signature')
  if (descriptor.mediaType !== BUNDLE_TYPE) throw invalid('a signature is not a bundle')
  return descriptor
}

async function fetchBundle(
  client: RegistryClient,
  referrer: Referrer,
  digest: Digest,
): Promise<FoundSignature | BrokenSignature> {
  const form = 'bundle' as const
  try {
    const manifest = await client.manifest(referrer.digest)
    if (manifest === null) throw invalid('a referrer is not there')
    if (manifest.bytes.length !== referrer.size) throw invalid('a referrer has another size')
    const layer = bundleLayer(manifest, digest)
    return await fetchSignature(client, layer, { form, signature: null })
  } catch (error) {
    return { form, artifact: referrer.digest, detail: brokenDetail(error) }
  }
}

async function collectBundles(
  client: RegistryClient,
  digest: Digest,
  into: Collection,
): Promise<void> {
  const { referrers } = await listReferrers(client, digest, BUNDLE_TYPE)
  for (const referrer of referrers) {
    if (referrer.artifactType === BUNDLE_TYPE && referrer.mediaType === OCI_MANIFEST) {
      into.add(await fetchBundle(client, referrer, digest))
    }
  }
}

/** @throws ImageError REGISTRY_*, IMAGE_TOO_LARGE */
export async function collectSignatures(
  client: RegistryClient,
  digest: Digest,
): Promise<Collected> {
  const collection = new Collection()
  await collectTag(client, digest, collection)
  await collectBundles(client, digest, collection)
  return collection
}
