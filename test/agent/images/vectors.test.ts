/** What the real cosign wrote, checked without it: test/vectors/images. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { type CheckedSignature, readSigningKey } from '../../../agent/images/index.ts'
import { checkSignatures } from '../../../agent/images/signatures/check.ts'
import { parseImageKey } from '../../../policy/image-key.ts'
import { digestOf } from './support/registry.ts'

const place = path.resolve(import.meta.dirname, '../../vectors/images/cosign-3.1.3')
const read = (name: string): Buffer => readFileSync(path.join(place, name))
const text = (name: string): string => read(name).toString('utf8')
const digest = text('digest').trim()
const key = parseImageKey({ id: 'v', pem: text('cosign.pub') }, { document: 'test', path: '' })

function check(form: 'tag' | 'bundle', name: string, signature: string | null): CheckedSignature {
  const bytes = read(name)
  const found = [{ form, artifact: digestOf(bytes), bytes, signature }]
  return checkSignatures({ found, keys: [key], digest })[0] ?? assert.fail('nothing was checked')
}

suite('agent/images/vectors: cosign 3.1.3', () => {
  test('verifies its signature in the tag form', () => {
    const { verified, reason, keyId, identity } = check(
      'tag',
      'payload',
      text('payload.sig').trim(),
    )
    assert.deepEqual([verified, reason, keyId], [true, 'verified', key.keyId])
    assert.match(identity ?? '', /^127\.0\.0\.1:[0-9]+\/demo\/app1$/u)
  })

  test('verifies its signature in the bundle form', () => {
    const { verified, reason, keyId } = check('bundle', 'bundle', null)
    assert.deepEqual([verified, reason, keyId], [true, 'verified', key.keyId])
  })

  test('does not take its attestation for a signature', () => {
    const { verified, reason } = check('bundle', 'attestation', null)
    assert.deepEqual([verified, reason], [false, 'unsupported'])
  })

  test('opens its key file with the password, and only with it', () => {
    const pem = text('cosign.key')
    assert.equal(readSigningKey(pem, 'password of the vectors').keyId, key.keyId)
    for (const password of [null, 'password']) {
      assert.throws(() => readSigningKey(pem, password), { code: 'SIGNING_KEY_INVALID' })
    }
  })
})
