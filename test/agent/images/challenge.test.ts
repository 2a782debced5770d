/** WWW-Authenticate headers as registries and attackers write them. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { parseChallenges } from '../../../agent/images/registry/challenge.ts'

const parse = (header: string): readonly unknown[] =>
  parseChallenges(header).map(({ scheme, parameters }) => [scheme, Object.fromEntries(parameters)])

suite('agent/images/registry/challenge', () => {
  const cases: Readonly<Record<string, readonly unknown[]>> = {
    '': [],
    Negotiate: [['negotiate', {}]],
    'Basic realm="a, b"': [['basic', { realm: 'a, b' }]],
    'Bearer realm="https://a/token",service="s",scope="repository:x:pull,push"': [
      ['bearer', { realm: 'https://a/token', service: 's', scope: 'repository:x:pull,push' }],
    ],
    'bearer Realm = "say \\"hi\\"" , error=invalid_token': [
      ['bearer', { realm: 'say "hi"', error: 'invalid_token' }],
    ],
    'Negotiate, Basic realm="x", Bearer realm="y"': [
      ['negotiate', {}],
      ['basic', { realm: 'x' }],
      ['bearer', { realm: 'y' }],
    ],
    'Bearer realm="never closed': [['bearer', {}]],
    '=,=': [],
    'realm="without a scheme"': [],
  }
  for (const [header, expected] of Object.entries(cases)) {
    test(`reads ${JSON.stringify(header)}`, () => {
      assert.deepEqual(parse(header), expected)
    })
  }

  test('ends quickly on what is made to be slow', () => {
    const started = performance.now()
    parse(`Bearer ${'a="\\'.repeat(2000)}`)
    parse('a'.repeat(8000))
    parse(`Bearer ${'x=y,'.repeat(2000)}`)
    assert.ok(performance.now() - started < 2000)
    assert.deepEqual(parse('B '.repeat(10_000)), [])
  })
})
