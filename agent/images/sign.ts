/**
 * Signs an image as `cosign sign --key` does, without a transparency log, and pushes the signature
 * beside it. `cosign verify --key` reads both forms.
 */
import { sign as signBytes } from 'node:crypto'

import type { Digest } from '../../policy/index.ts'
import {
  type Descriptor,
  descriptorMembers,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_MANIFEST,
} from './descriptor.ts'
import { digestOfBytes, invalid, listOf, parseDocument } from './document.ts'
import type { SigningKey } from './keys.ts'
import { MANIFEST_BYTES_MAX, REFERRERS_MAX } from './limits.ts'
import { nameOf } from './reference.ts'
import type { RegistryClient } from './registry/client.ts'
import { pushBlob, pushManifest } from './registry/push.ts'
import { fallbackTag, listReferrers } from './registry/referrers.ts'
import {
  BUNDLE_TYPE,
  hintOf,
  IN_TOTO_TYPE,
  preAuthEncoding,
  SIGNATURE_PREDICATE,
  STATEMENT_TYPE,
} from './signatures/bundle.ts'
import {
  parseSignatureManifest,
  SIGNATURE_ANNOTATION,
  SIMPLE_SIGNING_TYPE,
  signatureTag,
} from './signatures/collect.ts'
import { PAYLOAD_TYPE } from './signatures/simple-signing.ts'

export type SignatureForm = 'tag' | 'bundle'

export interface Signed {
  readonly form: SignatureForm
  readonly keyId: string
  /** Digest of the blob that holds the signature. */
  readonly artifact: Digest
}

const EMPTY_TYPE = 'application/vnd.oci.empty.v1+json'
/** Go's zero time: a signature says nothing about when. */
const NO_TIME = '0001-01-01T00:00:00Z'

const jsonBytes = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

const descriptorOf = (mediaType: string, bytes: Buffer): Descriptor => ({
  mediaType,
  size: bytes.length,
  digest: digestOfBytes(bytes),
})

function payloadBytes(name: string, digest: Digest): Buffer {
  const critical = {
    identity: { 'docker-reference': name },
    image: { 'docker-manifest-digest': digest },
    type: PAYLOAD_TYPE,
  }
  return jsonBytes({ critical, optional: null })
}

/** The image configuration that image libraries want to see beside any layers. */
const signatureConfig = (digests: readonly Digest[]): Buffer =>
  jsonBytes({
    architecture: '',
    created: NO_TIME,
    history: digests.map(() => ({ created: NO_TIME })),
    os: '',
    rootfs: { type: 'layers', diff_ids: digests },
    config: {},
  })

async function signTag(
  client: RegistryClient,
  target: Descriptor,
  key: SigningKey,
): Promise<Signed> {
  const payload = payloadBytes(nameOf(client.name), target.digest)
  const signature = signBytes('sha256', payload, key.privateKey).toString('base64')
  const tag = signatureTag(target.digest)
  const existing = await client.manifest(tag)
  const before = existing === null ? [] : parseSignatureManifest(existing)
  const own = {
    ...descriptorOf(SIMPLE_SIGNING_TYPE, payload),
    annotations: { [SIGNATURE_ANNOTATION]: signature },
  }
  // Signatures that others made stay, with annotations that are not understood here.
  const layers = [...(existing === null ? [] : layersOf(existing.bytes)), own]
  const config = signatureConfig([...before.map(({ digest }) => digest), own.digest])
  const manifest = jsonBytes({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: descriptorOf(OCI_CONFIG, config),
    layers,
  })
  await pushBlob(client, payload)
  await pushBlob(client, config)
  await pushManifest(client, tag, manifest, OCI_MANIFEST)
  return { form: 'tag', keyId: key.keyId, artifact: own.digest }
}

function layersOf(manifest: Uint8Array): readonly unknown[] {
  const document = parseDocument(manifest, MANIFEST_BYTES_MAX, 'the manifest of signatures', [])
  return listOf(document['layers'], 'signatures', REFERRERS_MAX)
}

function bundleBytes(target: Descriptor, key: SigningKey): Buffer {
  const payload = jsonBytes({
    _type: STATEMENT_TYPE,
    subject: [{ digest: { sha256: target.digest.slice('sha256:'.length) } }],
    predicateType: SIGNATURE_PREDICATE,
    predicate: {},
  })
  const signed = preAuthEncoding(IN_TOTO_TYPE, payload)
  return jsonBytes({
    mediaType: BUNDLE_TYPE,
    verificationMaterial: { publicKey: { hint: hintOf(key.keyId) } },
    dsseEnvelope: {
      payload: payload.toString('base64'),
      payloadType: IN_TOTO_TYPE,
      signatures: [{ sig: signBytes('sha256', signed, key.privateKey).toString('base64') }],
    },
  })
}

/** Adds a referrer to the index that stands in for the API. Two who do this at once lose one. */
async function addToFallback(
  client: RegistryClient,
  digest: Digest,
  referrer: Descriptor & { readonly artifactType: string },
): Promise<void> {
  const tag = fallbackTag(digest)
  const existing = await client.manifest(tag)
  const entries: unknown[] = []
  if (existing !== null) {
    if (existing.contentType !== OCI_INDEX) throw invalid('the list of referrers is not an index')
    const document = parseDocument(existing.bytes, MANIFEST_BYTES_MAX, 'the list of referrers', [])
    for (const entry of listOf(document['manifests'], 'referrers', REFERRERS_MAX)) {
      if (descriptorMembers(entry, 'a referrer')['digest'] !== referrer.digest) entries.push(entry)
    }
  }
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [...entries, referrer] }
  await pushManifest(client, tag, jsonBytes(index), OCI_INDEX)
}

async function signBundle(
  client: RegistryClient,
  target: Descriptor,
  key: SigningKey,
): Promise<Signed> {
  const bundle = bundleBytes(target, key)
  const config = Buffer.from('{}')
  const layer = descriptorOf(BUNDLE_TYPE, bundle)
  const annotations = {
    'dev.sigstore.bundle.content': 'dsse-envelope',
    'dev.sigstore.bundle.predicateType': SIGNATURE_PREDICATE,
  }
  const manifest = jsonBytes({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: BUNDLE_TYPE,
    config: descriptorOf(EMPTY_TYPE, config),
    layers: [layer],
    subject: target,
    annotations,
  })
  await pushBlob(client, bundle)
  await pushBlob(client, config)
  const descriptor = descriptorOf(OCI_MANIFEST, manifest)
  const taken = await pushManifest(client, descriptor.digest, manifest, OCI_MANIFEST)
  if (!taken) {
    const referrer = { ...descriptor, artifactType: BUNDLE_TYPE, annotations }
    await addToFallback(client, target.digest, referrer)
  }
  return { form: 'bundle', keyId: key.keyId, artifact: layer.digest }
}

/**
 * Signs what a reference resolved to.
 * @param form null: the bundle where the registry lists referrers itself, else the tag, which every
 *   cosign reads
 */
export async function signImage(
  client: RegistryClient,
  target: Descriptor,
  key: SigningKey,
  form: SignatureForm | null,
): Promise<Signed> {
  const { api } =
    form === null ? await listReferrers(client, target.digest, BUNDLE_TYPE) : { api: false }
  const chosen = form ?? (api ? 'bundle' : 'tag')
  return chosen === 'tag' ? signTag(client, target, key) : signBundle(client, target, key)
}
