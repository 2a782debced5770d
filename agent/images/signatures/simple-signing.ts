/**
 * cosign's tag form: the blob is a simplesigning payload, its annotation the signature over the
 * blob's bytes (cosign specs/SIGNATURE_SPEC.md; containers-signature(5) for the payload).
 */
import { digestOf, digestOfBytes, objectOf, parseDocument, stringOf } from '../document.ts'
import { SIGNATURE_BYTES_MAX } from '../limits.ts'
import type { FoundSignature, TrustedKey } from './found.ts'
import { fails, type Outcome } from './outcome.ts'
import { decodeBase64, verifies } from './verify.ts'

export const PAYLOAD_TYPE = 'cosign container image signature'

interface Payload {
  readonly digest: string
  readonly identity: string
}

/** Exactly these members under `critical`: one that this reader skipped could mean "not valid". */
function parsePayload(bytes: Uint8Array): Payload {
  const names = ['critical', 'optional']
  const payload = parseDocument(bytes, SIGNATURE_BYTES_MAX, 'the payload', names)
  const critical = objectOf(payload['critical'], 'critical', ['identity', 'image', 'type'])
  const identity = objectOf(critical['identity'], 'identity', ['docker-reference'])
  const image = objectOf(critical['image'], 'image', ['docker-manifest-digest'])
  const extra =
    Object.keys(payload).some((name) => !names.includes(name)) ||
    Object.keys(critical).length !== 3 ||
    Object.keys(identity).length !== 1 ||
    Object.keys(image).length !== 1
  if (extra) throw new TypeError('the payload has members that are not understood')
  if (critical['type'] !== PAYLOAD_TYPE) throw new TypeError('the payload is of another type')
  return {
    digest: digestOf(image['docker-manifest-digest'], 'docker-manifest-digest'),
    identity: stringOf(identity['docker-reference'], 'docker-reference'),
  }
}

/** Verifies first and parses then: what nobody known signed is not worth parsing. */
export function checkSimpleSigning(found: FoundSignature, keys: readonly TrustedKey[]): Outcome {
  const signature = decodeBase64(found.signature ?? '')
  if (signature === null || signature.length === 0) {
    return fails('malformed', 'its annotation holds no signature')
  }
  const key = keys.find((one) => verifies(one, found.bytes, signature))
  if (key === undefined) {
    return {
      ...fails('no_key_matches', 'none of the keys made it'),
      payload: digestOfBytes(found.bytes),
    }
  }
  const { digest, identity } = parsePayload(found.bytes)
  return {
    keyId: key.keyId,
    digest,
    // An empty docker-reference binds nothing, like a form that has none.
    identity: identity === '' ? null : identity,
    payload: digestOfBytes(found.bytes),
    reason: 'verified',
    detail: 'it verifies',
  }
}
