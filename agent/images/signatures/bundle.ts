/**
 * cosign's bundle form: a sigstore bundle v0.3 with a DSSE envelope around an in-toto statement
 * (protobuf-specs sigstore_bundle.proto; DSSE protocol.md; in-toto Statement v1).
 *
 * The envelope's signature says only "somebody signed this statement". That it is a signature for an
 * image, and for this one, is checked here: another statement by the same key, an SBOM or a
 * provenance, must never count as a signature (CVE-2026-39395).
 */
import type { Canonical } from '../../../policy/canonical.ts'
import {
  digestOfBytes,
  listOf,
  type Members,
  objectOf,
  optionalStringOf,
  parseDocument,
  stringOf,
} from '../document.ts'
import { SIGNATURE_BYTES_MAX } from '../limits.ts'
import type { FoundSignature, TrustedKey } from './found.ts'
import { fails, type Outcome } from './outcome.ts'
import { decodeBase64, verifies } from './verify.ts'

export const BUNDLE_TYPE = 'application/vnd.dev.sigstore.bundle.v0.3+json'
export const IN_TOTO_TYPE = 'application/vnd.in-toto+json'
export const STATEMENT_TYPE = 'https://in-toto.io/Statement/v1'
export const SIGNATURE_PREDICATE = 'https://sigstore.dev/cosign/sign/v1'
const STATEMENT_TYPES = new Set([STATEMENT_TYPE, 'https://in-toto.io/Statement/v0.1'])

/** The bytes that a DSSE signature is over: PAE of DSSE v1. */
export function preAuthEncoding(payloadType: string, payload: Uint8Array): Buffer {
  const head = `DSSEv1 ${Buffer.byteLength(payloadType)} ${payloadType} ${payload.length} `
  return Buffer.concat([Buffer.from(head), payload])
}

/** A bundle's key hint: base64 of what our key ids say in hex. */
export const hintOf = (keyId: string): string =>
  Buffer.from(keyId.slice('sha256:'.length), 'hex').toString('base64')

function bytesOf(value: Canonical | undefined, what: string): Buffer {
  const bytes = decodeBase64(stringOf(value, what))
  if (bytes === null) throw new TypeError(`${what} is not base64`)
  return bytes
}

interface Envelope {
  readonly payload: Buffer
  readonly payloadType: string
  readonly signature: Buffer
}

function parseEnvelope(value: Canonical | undefined): Envelope {
  const envelope = objectOf(value, 'dsseEnvelope', ['payload', 'payloadType', 'signatures'])
  const signatures = listOf(envelope['signatures'], 'signatures', 16)
  // Verifiers differ in which of several they look at.
  if (signatures.length !== 1) throw new TypeError('the envelope has not exactly one signature')
  const signature = objectOf(signatures[0], 'a signature', ['sig', 'keyid'])
  return {
    payload: bytesOf(envelope['payload'], 'payload'),
    payloadType: stringOf(envelope['payloadType'], 'payloadType'),
    signature: bytesOf(signature['sig'], 'sig'),
  }
}

/** The digest that a statement signs, or what it is instead of a signature of an image. */
function readStatement(payload: Buffer): { digest: string } | Outcome {
  const known = ['_type', 'subject', 'predicateType', 'predicate']
  const statement = parseDocument(payload, SIGNATURE_BYTES_MAX, 'the statement', known)
  if (!STATEMENT_TYPES.has(stringOf(statement['_type'], '_type'))) {
    return fails('unsupported', 'its statement is of a type that is not known')
  }
  if (statement['predicateType'] !== SIGNATURE_PREDICATE) {
    return fails('unsupported', 'it is an attestation of something else, not a signature')
  }
  const subjects = listOf(statement['subject'], 'subjects', 16)
  if (subjects.length !== 1) return fails('malformed', 'its statement has not exactly one subject')
  const subject = objectOf(subjects[0], 'the subject', ['digest', 'name'])
  const digest = objectOf(subject['digest'], 'the digest of the subject', ['sha256'])
  if (Object.keys(digest).join() !== 'sha256') {
    return fails('unsupported', 'its subject has another digest than SHA-256')
  }
  const hex = stringOf(digest['sha256'], 'sha256')
  if (!/^[0-9a-f]{64}$/u.test(hex)) return fails('malformed', 'its subject has no proper digest')
  return { digest: `sha256:${hex}` }
}

/** The hint of a bundle made with a key; null when it was made with a certificate. */
function hintOfBundle(bundle: Members): string | null {
  const material = objectOf(bundle['verificationMaterial'], 'verificationMaterial', [
    'publicKey',
    'certificate',
    'x509CertificateChain',
  ])
  if (material['publicKey'] === undefined) return null
  const publicKey = objectOf(material['publicKey'], 'publicKey', ['hint'])
  return optionalStringOf(publicKey['hint'], 'hint') ?? ''
}

export function checkBundle(found: FoundSignature, keys: readonly TrustedKey[]): Outcome {
  const known = ['mediaType', 'verificationMaterial', 'dsseEnvelope', 'messageSignature']
  const bundle = parseDocument(found.bytes, SIGNATURE_BYTES_MAX, 'the bundle', known)
  if (bundle['mediaType'] !== BUNDLE_TYPE)
    return fails('unsupported', 'it is no bundle of version 0.3')
  if (bundle['dsseEnvelope'] === undefined || bundle['messageSignature'] !== undefined) {
    return fails('unsupported', 'its content is not a DSSE envelope')
  }
  const hint = hintOfBundle(bundle)
  if (hint === null) return fails('unsupported', 'it was made with a certificate, not with a key')
  const envelope = parseEnvelope(bundle['dsseEnvelope'])
  if (envelope.payloadType !== IN_TOTO_TYPE) {
    return fails('unsupported', 'its envelope holds no in-toto statement')
  }
  const payload = digestOfBytes(envelope.payload)
  // The hint chooses the key. Trying all would let a signature claim one key and be of another.
  const key = keys.find((one) => hintOf(one.keyId) === hint)
  const signed = preAuthEncoding(envelope.payloadType, envelope.payload)
  if (key === undefined || !verifies(key, signed, envelope.signature)) {
    return {
      ...fails('no_key_matches', 'the key it names is not known or did not make it'),
      payload,
    }
  }
  const statement = readStatement(envelope.payload)
  if ('reason' in statement) return { ...statement, payload }
  const outcome = { keyId: key.keyId, identity: null, payload, ...statement }
  return { ...outcome, reason: 'verified', detail: 'it verifies' }
}
