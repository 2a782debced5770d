import assert from 'node:assert/strict'
import { createHash, generateKeyPairSync } from 'node:crypto'
import { suite, test } from 'node:test'
import { matchesGlob, parseGlob } from '../../policy/image-glob.ts'
import { BadDocument, parseImageRule } from '../../policy/index.ts'
import { authority, document, imageRule, key, keyIdOf, newPem, ruleOf } from './fixtures.ts'

const refuse = (value: unknown, path: string): void => {
  const text = typeof value === 'string' ? value : JSON.stringify(value)
  assert.throws(
    () => parseImageRule(text),
    (error) => {
      assert.ok(error instanceof BadDocument, String(error))
      assert.equal(error.path, path, error.message)
      return true
    },
  )
}

const requirement = (anyOf: unknown, threshold: unknown = 1): Record<string, unknown> => ({
  anyOf,
  threshold,
})
const rule = (changes: Record<string, unknown> = {}): Record<string, unknown> => ({
  name: 'prod',
  match: ['**'],
  require: { all: [requirement([authority([key])])] },
  ...changes,
})
const requiring = (...all: unknown[]): Record<string, unknown> =>
  document([rule({ require: { all } })])

suite('policy/image-rule: the document', () => {
  test('reads a rule, with the digest of its very bytes', () => {
    const text = JSON.stringify(document(), null, 2)
    const read = parseImageRule(text)
    const hash = createHash('sha256').update(text).digest('hex')
    assert.equal(read.digest, `sha256:${hash}`)
    assert.equal(read.text, text)
    assert.deepEqual(read.rules, imageRule.rules)
  })

  test('names a key by the digest of its SPKI', () => {
    const der = Buffer.from(key.pem.replaceAll(/-----[A-Z ]+-----|\n/gu, ''), 'base64')
    const hash = createHash('sha256').update(der).digest('hex')
    assert.equal(keyIdOf(imageRule), `sha256:${hash}`)
  })

  for (const [what, value, path] of [
    ['text that is no JSON', '{"schemaVersion":1', ''],
    ['a member twice', '{"schemaVersion":1,"schemaVersion":1,"default":"deny","rules":[]}', ''],
    ['another version', { ...document(), schemaVersion: 2 }, 'schemaVersion'],
    ['a default of allow', { ...document(), default: 'allow' }, 'default'],
    ['no rules', document([]), 'rules'],
    ['an unknown member', { ...document(), comment: '' }, ''],
    ['a missing member', { schemaVersion: 1, default: 'deny' }, 'rules'],
    ['a list as document', [document()], ''],
    ['two rules of one name', document([rule(), rule()]), 'rules'],
    ['a rule without match', document([rule({ match: [] })]), 'rules.0.match'],
    ['a member this version does not read', document([rule({ formats: ['oci'] })]), 'rules.0'],
    ['a requirement of nothing', requiring(), 'rules.0.require.all'],
    ['65 rules', document(Array.from({ length: 65 }, (_, n) => rule({ name: `r${n}` }))), 'rules'],
    ['a document over 256 KiB', ' '.repeat(262_145), ''],
  ] as const) {
    test(`refuses ${what}`, () => {
      refuse(value, path)
    })
  }
})

const keyed = (changes: Record<string, unknown>): unknown =>
  requiring(requirement([{ ...authority([key]), ...changes }]))

suite('policy/image-rule: authorities and keys', () => {
  const at = 'rules.0.require.all.0'
  for (const [what, value, path] of [
    ['a type of later versions', keyed({ type: 'sigstore-keyless' }), `${at}.anyOf.0.type`],
    ['a transparency log', keyed({ transparency: 'rekor' }), `${at}.anyOf.0.transparency`],
    ['no identityMatch', keyed({ identityMatch: null }), `${at}.anyOf.0.identityMatch`],
    ['no authority', requiring(requirement([])), `${at}.anyOf`],
    ['threshold 0', requiring(requirement([authority([key])], 0)), `${at}.threshold`],
    ['threshold 1.5', requiring(requirement([authority([key])], 1.5)), `${at}.threshold`],
    ['more than there are keys', requiring(requirement([authority([key])], 2)), `${at}.threshold`],
    [
      'one key under two names',
      requiring(requirement([authority([key, { id: 'other', pem: key.pem }])])),
      `${at}.anyOf`,
    ],
    [
      'one key in two authorities',
      requiring(requirement([authority([key]), authority([key])], 2)),
      `${at}.anyOf`,
    ],
  ] as const) {
    test(`refuses ${what}`, () => {
      refuse(value, path)
    })
  }

  const pair = generateKeyPairSync('ec', { namedCurve: 'P-256' })
  const spki = { type: 'spki', format: 'pem' } as const
  for (const [what, pem] of [
    ['a private key', pair.privateKey.export({ type: 'pkcs8', format: 'pem' }).toString()],
    ['two keys in one', newPem() + newPem()],
    ['text before the key', `trust me\n${newPem()}`],
    ['rubbish in armour', '-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n'],
    [
      'another curve',
      generateKeyPairSync('ec', { namedCurve: 'P-384' }).publicKey.export(spki).toString(),
    ],
    ['an Ed25519 key', generateKeyPairSync('ed25519').publicKey.export(spki).toString()],
    [
      'an RSA key',
      generateKeyPairSync('rsa', { modulusLength: 2048 }).publicKey.export(spki).toString(),
    ],
    ['no text', ''],
  ] as const) {
    test(`refuses ${what} as a key`, () => {
      const value = requiring(requirement([authority([{ id: 'k', pem }])]))
      refuse(value, `${at}.anyOf.0.keys.0.pem`)
    })
  }

  test('takes a key with Windows line ends as the same key', () => {
    const pem = key.pem.replaceAll('\n', '\r\n')
    assert.equal(
      keyIdOf(ruleOf(requiring(requirement([authority([{ id: 'k', pem }])])))),
      keyIdOf(imageRule),
    )
  })
})

suite('policy/image-glob', () => {
  const where = { document: 'test', path: '' }
  for (const text of [
    '',
    '*',
    '**/x',
    'registry.example.com',
    '*.example.com/x',
    'r.io/**/x',
    'r.io/a**',
    'r.io//x',
    'r.io/../x',
    'r.io/X',
    'R.io/x',
    'r.io/x/',
    '/x',
    'r.io/a b',
    'r.io/.x',
    'r.io:0/x',
    'r.io/[a]',
    `r.io/${'a'.repeat(600)}`,
  ]) {
    test(`refuses the pattern '${text.slice(0, 24)}'`, () => {
      assert.throws(() => parseGlob(text, where), BadDocument)
    })
  }

  for (const [pattern, name, matches] of [
    ['**', 'r.io/x', true],
    ['r.io/x', 'r.io/x', true],
    ['r.io/x', 'r.io/xy', false],
    ['r.io/x', 'r.io/x/y', false],
    ['r.io/x', 'evil.io/r.io/x', false],
    ['r.io/**', 'r.io/x', true],
    ['r.io/**', 'r.io/x/y/z', true],
    ['r.io/**', 'r.io', false],
    ['r.io/**', 'r.ioevil/x', false],
    ['r.io/acme/**', 'r.io/acme', false],
    ['r.io/acme/**', 'r.io/acmeevil/x', false],
    ['r.io/acme/*', 'r.io/acme/x', true],
    ['r.io/acme/*', 'r.io/acme/x/y', false],
    ['r.io/acme/*', 'r.io/acme/', false],
    ['r.io/*/web', 'r.io/a/web', true],
    ['r.io/*/web', 'r.io/a/b/web', false],
    ['r.io/a*c', 'r.io/abc', true],
    ['r.io/a*c', 'r.io/ac', true],
    ['r.io/a*a', 'r.io/a', false],
    ['r.io/a*b*c', 'r.io/axbxbxc', true],
    ['r.io/a*b*c', 'r.io/acb', false],
    ['r.io/ab*bc', 'r.io/abc', false],
    ['127.0.0.1:5000/demo/*', '127.0.0.1:5000/demo/x', true],
    ['127.0.0.1:5000/demo/*', '127.0.0.1:50001/demo/x', false],
  ] as const) {
    test(`${matches ? 'matches' : 'does not match'} ${name} by ${pattern}`, () => {
      assert.equal(matchesGlob(parseGlob(pattern, where), name), matches)
    })
  }

  test('takes no time over many stars', () => {
    const glob = parseGlob(`r.io/${'a*'.repeat(60)}b`, where)
    assert.equal(matchesGlob(glob, `r.io/${'a'.repeat(50_000)}`), false)
  })
})
