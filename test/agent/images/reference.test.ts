/** References and digests: the grammar, and what it is expanded to. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { formatReference, parseReference } from '../../../agent/images/reference.ts'

const HEX = 'ab'.repeat(32)

suite('agent/images/reference', () => {
  const good: Readonly<Record<string, string>> = {
    busybox: 'docker.io/library/busybox:latest',
    'acme/app': 'docker.io/acme/app:latest',
    'registry.example.com/app': 'registry.example.com/app:latest',
    'registry.example.com:5000/a/b/c:1.2_3-x': 'registry.example.com:5000/a/b/c:1.2_3-x',
    'localhost/app': 'localhost/app:latest',
    '127.0.0.1:5000/app:v1': '127.0.0.1:5000/app:v1',
    '[::1]:5000/app:v1': '[::1]:5000/app:v1',
    [`r.example/a__b/c--d.e@sha256:${HEX}`]: `r.example/a__b/c--d.e@sha256:${HEX}`,
    [`r.example/app:v1@sha256:${HEX}`]: `r.example/app:v1@sha256:${HEX}`,
  }
  for (const [text, expanded] of Object.entries(good)) {
    test(`expands ${text}`, () => {
      assert.equal(formatReference(parseReference(text)), expanded)
      assert.equal(formatReference(parseReference(expanded)), expanded)
    })
  }

  const bad = [
    '',
    'UPPER/case',
    'https://registry.example.com/app',
    'registry.example.com/',
    'registry.example.com/app:',
    'registry.example.com/app:.dot',
    `registry.example.com/app:${'x'.repeat(129)}`,
    'registry.example.com/../app',
    'registry.example.com/a//b',
    'registry.example.com/-a',
    'registry.example.com/a.',
    'registry.example.com:99999/app',
    'user@registry.example.com/app',
    'registry.example.com/app@sha256:abc',
    `registry.example.com/app@sha256:${HEX.toUpperCase()}`,
    `registry.example.com/app@sha512:${HEX}`,
    `registry.example.com/app@sha256:../../${HEX}`,
    `registry.example.com/app@sha256:${HEX}\n`,
    'registry.example.com/app?x=y',
    'registry.example.com/app%2e',
    'registry.example.com/a b',
    `registry.example.com/${'a/'.repeat(200)}b`,
  ]
  for (const text of bad) {
    test(`refuses ${JSON.stringify(text).slice(0, 80)}`, () => {
      assert.throws(() => parseReference(text), { code: 'IMAGE_REFERENCE_INVALID' })
    })
  }
})
