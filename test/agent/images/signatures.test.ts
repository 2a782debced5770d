/** cosign signatures in both forms: found, checked, and not mistaken for something else. */
import assert from 'node:assert/strict'
import { createPrivateKey, sign as signBytes } from 'node:crypto'
import { suite, test } from 'node:test'
import { OCI_MANIFEST } from '../../../agent/images/descriptor.ts'
import {
  type CheckedSignature,
  generateSigningKey,
  readSigningKey,
  type SignatureForm,
  type SigningKeyPair,
  type TrustedKey,
} from '../../../agent/images/index.ts'
import {
  BUNDLE_TYPE,
  hintOf,
  IN_TOTO_TYPE,
  preAuthEncoding,
  SIGNATURE_PREDICATE,
  STATEMENT_TYPE,
} from '../../../agent/images/signatures/bundle.ts'
import { checkSignatures } from '../../../agent/images/signatures/check.ts'
import { PAYLOAD_TYPE } from '../../../agent/images/signatures/simple-signing.ts'
import { json } from './support/image.ts'
import { digestOf } from './support/registry.ts'

const DIGEST = `sha256:${'1'.repeat(64)}`
const OTHER = `sha256:${'2'.repeat(64)}`
const NAME = 'registry.example.com/acme/app'
const ours = generateSigningKey()
const theirs = generateSigningKey()

const trusted = ({ keyId, publicPem }: SigningKeyPair): TrustedKey => ({ keyId, pem: publicPem })
const signWith = (key: SigningKeyPair, bytes: Uint8Array): string =>
  signBytes('sha256', bytes, createPrivateKey(key.privatePem)).toString('base64')

function check(
  form: SignatureForm,
  bytes: Buffer,
  signature: string | null,
  keys: readonly TrustedKey[] = [trusted(theirs), trusted(ours)],
): CheckedSignature {
  const found = [{ form, artifact: digestOf(bytes), bytes, signature }]
  const [checked] = checkSignatures({ found, keys, digest: DIGEST })
  return checked ?? assert.fail('nothing was checked')
}

const payload = (over: object = {}, critical: object = {}): Buffer =>
  json({
    critical: {
      identity: { 'docker-reference': NAME },
      image: { 'docker-manifest-digest': DIGEST },
      type: PAYLOAD_TYPE,
      ...critical,
    },
    optional: null,
    ...over,
  })
const checkPayload = (bytes: Buffer, key: SigningKeyPair = ours): CheckedSignature =>
  check('tag', bytes, signWith(key, bytes))

interface BundleParts {
  readonly statement?: object
  readonly payload?: Buffer
  readonly payloadType?: string
  readonly key?: SigningKeyPair
  readonly hint?: string
  readonly envelope?: object
  readonly bundle?: object
}

function bundle(parts: BundleParts = {}): Buffer {
  const key = parts.key ?? ours
  const type = parts.payloadType ?? IN_TOTO_TYPE
  const statement = {
    _type: STATEMENT_TYPE,
    subject: [{ digest: { sha256: DIGEST.slice(7) } }],
    predicateType: SIGNATURE_PREDICATE,
    predicate: {},
    ...parts.statement,
  }
  const bytes = parts.payload ?? json(statement)
  const dsseEnvelope = {
    payload: bytes.toString('base64'),
    payloadType: type,
    signatures: [{ sig: signWith(key, preAuthEncoding(type, bytes)) }],
    ...parts.envelope,
  }
  return json({
    mediaType: BUNDLE_TYPE,
    verificationMaterial: { publicKey: { hint: parts.hint ?? hintOf(key.keyId) } },
    dsseEnvelope,
    ...parts.bundle,
  })
}
const checkBundle = (parts: BundleParts = {}): CheckedSignature =>
  check('bundle', bundle(parts), null)

const verdict = ({ verified, reason, keyId }: CheckedSignature): readonly unknown[] => [
  verified,
  reason,
  keyId,
]

suite('agent/images/signatures: tag form', () => {
  test('verifies a payload, and reports key, digest and repository', () => {
    const bytes = payload()
    const checked = checkPayload(bytes)
    assert.deepEqual(verdict(checked), [true, 'verified', ours.keyId])
    assert.deepEqual(
      [checked.digest, checked.identity, checked.payload],
      [DIGEST, NAME, digestOf(bytes)],
    )
  })

  test('takes an empty docker-reference for none', () => {
    const bytes = payload({}, { identity: { 'docker-reference': '' } })
    assert.equal(checkPayload(bytes).identity, null)
  })

  test('reports a right signature for another image as that', () => {
    const checked = checkPayload(payload({}, { image: { 'docker-manifest-digest': OTHER } }))
    assert.deepEqual(verdict(checked), [true, 'digest_mismatch', ours.keyId])
    assert.equal(checked.digest, OTHER)
  })

  test('knows no key for what a stranger signed', () => {
    const stranger = generateSigningKey()
    assert.deepEqual(verdict(checkPayload(payload(), stranger)), [false, 'no_key_matches', null])
  })

  test('does not verify when a byte of the payload or the signature is another', () => {
    const bytes = payload()
    const signature = Buffer.from(signWith(ours, bytes), 'base64')
    const changed = Buffer.from(bytes)
    changed[bytes.indexOf('acme')] = 0x41
    assert.equal(check('tag', changed, signature.toString('base64')).reason, 'no_key_matches')
    signature[signature.length - 1] = (signature.at(-1) ?? 0) ^ 1
    assert.equal(check('tag', bytes, signature.toString('base64')).verified, false)
  })

  const text = payload().toString('utf8')
  const malformed: Readonly<Record<string, Buffer>> = {
    'is not JSON': Buffer.from('x'),
    'has the digest twice': Buffer.from(
      text.replace(
        '"docker-manifest-digest"',
        `"docker-manifest-digest":"${OTHER}","docker-manifest-digest"`,
      ),
    ),
    'has the digest twice, once in other case': payload(
      {},
      { image: { 'docker-manifest-digest': DIGEST, 'Docker-Manifest-Digest': OTHER } },
    ),
    'has another member under critical': payload({}, { expires: 'yesterday' }),
    'has another member': payload({ extra: 1 }),
    'is of the type that GPG signs': payload({}, { type: 'atomic container signature' }),
    'has no digest': payload({}, { image: {} }),
    'begins with a byte order mark': Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), payload()]),
    'is nested without end': Buffer.from(`${'['.repeat(50_000)}${']'.repeat(50_000)}`),
    'names its prototype': Buffer.from(text.replace('"critical"', '"__proto__"')),
  }
  for (const [what, bytes] of Object.entries(malformed)) {
    test(`does not count a signed payload that ${what}`, () => {
      assert.deepEqual(verdict(checkPayload(bytes)), [false, 'malformed', null])
    })
  }

  for (const signature of [null, '', 'no base64', `${signWith(ours, payload())}\n`, '====']) {
    test(`does not count the annotation ${JSON.stringify(signature)?.slice(0, 20)}`, () => {
      assert.equal(check('tag', payload(), signature).reason, 'malformed')
    })
  }
})

suite('agent/images/signatures: bundle form', () => {
  test('verifies a bundle, and reports that no repository is signed', () => {
    const checked = checkBundle()
    assert.deepEqual(verdict(checked), [true, 'verified', ours.keyId])
    assert.deepEqual([checked.digest, checked.identity], [DIGEST, null])
  })

  test('reports a right bundle for another image as that', () => {
    const checked = checkBundle({
      statement: { subject: [{ digest: { sha256: OTHER.slice(7) } }] },
    })
    assert.deepEqual(verdict(checked), [true, 'digest_mismatch', ours.keyId])
  })

  const hex = DIGEST.slice(7)
  const refused: Readonly<Record<string, readonly [BundleParts, string]>> = {
    'signed by a stranger': [{ key: generateSigningKey() }, 'no_key_matches'],
    'signed by one key with the hint of another': [
      { key: theirs, hint: hintOf(ours.keyId) },
      'no_key_matches',
    ],
    'without a hint': [{ bundle: { verificationMaterial: { publicKey: {} } } }, 'no_key_matches'],
    'made with a certificate': [
      { bundle: { verificationMaterial: { certificate: { rawBytes: '' } } } },
      'unsupported',
    ],
    'that is an SBOM (CVE-2026-39395)': [
      { statement: { predicateType: 'https://spdx.dev/Document' } },
      'unsupported',
    ],
    'that is a provenance': [
      { statement: { predicateType: 'https://slsa.dev/provenance/v1' } },
      'unsupported',
    ],
    'with another payload type': [{ payloadType: 'text/plain' }, 'unsupported'],
    'with another statement type': [{ statement: { _type: 'x' } }, 'unsupported'],
    'with two subjects': [
      { statement: { subject: [{ digest: { sha256: hex } }, { digest: { sha256: hex } }] } },
      'malformed',
    ],
    'without a subject': [{ statement: { subject: [] } }, 'malformed'],
    'with a SHA-512 subject only': [
      { statement: { subject: [{ digest: { sha512: 'a'.repeat(128) } }] } },
      'unsupported',
    ],
    'with two digests of its subject': [
      { statement: { subject: [{ digest: { sha256: hex, sha512: 'a'.repeat(128) } }] } },
      'unsupported',
    ],
    'with a digest in upper case': [
      { statement: { subject: [{ digest: { sha256: 'A'.repeat(64) } }] } },
      'malformed',
    ],
    'with two signatures': [{ envelope: { signatures: [{ sig: '' }, { sig: '' }] } }, 'malformed'],
    'without a signature': [{ envelope: { signatures: [] } }, 'malformed'],
    'with a payload that is not base64': [{ envelope: { payload: '!' } }, 'malformed'],
    'of another version': [{ bundle: { mediaType: `${BUNDLE_TYPE}x` } }, 'unsupported'],
    'with a message signature beside it': [{ bundle: { messageSignature: {} } }, 'unsupported'],
    'without an envelope': [{ bundle: { dsseEnvelope: undefined } }, 'unsupported'],
    'with the subject twice': [
      {
        payload: Buffer.from(
          `{"_type":"${STATEMENT_TYPE}","predicateType":"${SIGNATURE_PREDICATE}","subject":[],"subject":[{"digest":{"sha256":"${hex}"}}]}`,
        ),
      },
      'malformed',
    ],
  }
  for (const [what, [parts, reason]] of Object.entries(refused)) {
    test(`does not count a bundle ${what}`, () => {
      assert.deepEqual(verdict(checkBundle(parts)), [false, reason, null])
    })
  }

  test('does not verify an envelope whose payload type was changed afterwards', () => {
    const changed = bundle().toString('utf8').replace(IN_TOTO_TYPE, 'application/vnd.in-toto')
    assert.equal(check('bundle', Buffer.from(changed), null).verified, false)
  })

  test('does not count a bundle that is no JSON', () => {
    assert.equal(check('bundle', Buffer.from('\0'), null).reason, 'malformed')
  })
})

suite('agent/images/keys', () => {
  test('reads its own keys, and those with a password', () => {
    assert.equal(readSigningKey(ours.privatePem, null).keyId, ours.keyId)
    const locked = createPrivateKey(ours.privatePem)
      .export({ type: 'pkcs8', format: 'pem', cipher: 'aes-256-cbc', passphrase: 'secret' })
      .toString()
    assert.equal(readSigningKey(locked, 'secret').keyId, ours.keyId)
    for (const password of [null, 'wrong']) {
      assert.throws(() => readSigningKey(locked, password), { code: 'SIGNING_KEY_INVALID' })
    }
  })

  test('refuses what is no private key on P-256', () => {
    for (const pem of ['', ours.publicPem, OCI_MANIFEST]) {
      assert.throws(() => readSigningKey(pem, null), { code: 'SIGNING_KEY_INVALID' })
    }
  })
})
