/**
 * What was found out about the signatures of one image, as plain data.
 *
 * agent/images verifies signatures (it reads keys from the rule with `keysToTry`, fetches, does the
 * cryptography) and reports here what it saw; policy/image-rule.ts alone decides what that is worth.
 * So nothing that reads hostile bytes decides, and the decision needs no I/O.
 */

/** Why a signature did or did not verify. A closed list: it goes into records and refusals. */
export type EvidenceReason =
  /** The signature is right, and made by `keyId`. */
  | 'verified'
  /** Well-formed, but no key that was tried verifies it. */
  | 'no_key_matches'
  /** Right signature of a known key, over a payload that names another manifest digest. */
  | 'digest_mismatch'
  /** Payload, envelope or bundle that is not what its format says; nothing was verified. */
  | 'malformed'
  /** A format, algorithm or predicate that this version does not read. */
  | 'unsupported'

/**
 * One signature found for an image. Several keys tried on one signature give one Evidence: that of
 * the key that verified it, or one with `verified: false`.
 */
export interface Evidence {
  readonly kind: 'cosign-key'
  /** `sha256:` + hex SHA-256 of the key's SPKI DER; null when no key verified the signature. */
  readonly keyId: string | null
  /** Storage form: tag `sha256-<hex>.sig`, or a sigstore bundle found through referrers. */
  readonly form: 'tag' | 'bundle'
  /** The manifest digest that the signed payload names; null when it could not be read. */
  readonly digest: string | null
  /** `critical.identity.docker-reference` of the payload; null where the form carries none. */
  readonly identity: string | null
  /** Digest of the blob that held the signature (layer of the tag form, or the bundle). */
  readonly artifact: string
  /** The signature verifies under `keyId`. `digest` may still be another image's. */
  readonly verified: boolean
  readonly reason: EvidenceReason
}
