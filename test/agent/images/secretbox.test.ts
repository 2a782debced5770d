/** secretbox against the vector of the NaCl paper (section 10), which all implementations share. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { openSecretBox } from '../../../agent/images/secretbox.ts'

const hex = (text: string): Buffer => Buffer.from(text, 'hex')
const key = hex('1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389')
const nonce = hex('69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37')
const box = hex(
  'f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5',
)
const text =
  'be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f937763848645e0705'

suite('agent/images/secretbox', () => {
  test('opens the box of the NaCl paper', () => {
    assert.equal(openSecretBox(box, key, nonce)?.toString('hex'), text)
  })

  test('opens nothing when one bit of box, key or nonce is another', () => {
    for (const part of ['box', 'key', 'nonce'] as const) {
      const parts = { box: Buffer.from(box), key: Buffer.from(key), nonce: Buffer.from(nonce) }
      parts[part][5] = (parts[part][5] ?? 0) ^ 4
      assert.equal(openSecretBox(parts.box, parts.key, parts.nonce), null, part)
    }
    assert.equal(openSecretBox(box.subarray(0, 15), key, nonce), null)
    assert.equal(openSecretBox(box, key.subarray(1), nonce), null)
  })
})
