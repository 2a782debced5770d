import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  BadJsonText,
  canonicalBytes,
  canonicalJson,
  NotCanonical,
  parseCanonical,
  parseJson,
} from '../../policy/canonical.ts'

const limits = { bytesMax: 4096, depthMax: 4 }
const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)

const values: readonly [string, unknown][] = [
  ['a float', 1.5],
  ['-0', -0],
  ['2^53', 2 ** 53],
  ['NaN', Number.NaN],
  ['undefined', undefined],
  ['an undefined member', { a: undefined }],
  ['a hole', Array.from({ length: 2, 0: 1 })],
  ['a bigint', 1n],
  ['a date', new Date(0)],
  ['bytes', Buffer.from('a')],
  ['a lone surrogate', '\ud800'],
  ['a lone surrogate in a name', { '\udc00': 1 }],
]

const notCanonical = [
  '',
  ' 1',
  '1\n',
  '01',
  '-0',
  '1.0',
  '1e3',
  '9007199254740992',
  '[1,]',
  '{"a": 1}',
  '{"b":1,"a":2}',
  '{"a":1,"a":1}',
  '{"a":1,"a":2}',
  '"\\/"',
  '"\\u0041"',
  '"\\u000A"',
  '"\\ud83d\\ude00"',
  '"\\ud800"',
  '\ufeff1',
  'NaN',
]

suite('policy/canonical', () => {
  test('writes members in the order of UTF-16 code units', () => {
    const value = { '\u{FB33}': 2, '\u{1F600}': 1, a: null, A: true, '': [] }
    assert.equal(canonicalJson(value), '{"":[],"A":true,"a":null,"\u{1F600}":1,"\u{FB33}":2}')
  })

  test('writes the strings of RFC 8785 section 3.2.2.2', () => {
    const text = '\u20ac$\u000f\nA\'B"\\\\"/'
    assert.equal(canonicalJson(text), '"\u20ac$\\u000f\\nA\'B\\"\\\\\\\\\\"/"')
    assert.equal(canonicalJson('\b\t\n\f\r\u007f\u2028'), '"\\b\\t\\n\\f\\r\u007f\u2028"')
  })

  for (const text of [
    'null',
    'true',
    '0',
    '-1',
    '9007199254740991',
    '[]',
    '{}',
    '{"":[1,"x"]}',
    '{"__proto__":1}',
  ]) {
    test(`reads back ${text}`, () => {
      assert.equal(canonicalJson(parseCanonical(text)), text)
      assert.deepEqual(
        canonicalBytes(parseCanonical(Buffer.from(text))),
        new Uint8Array(Buffer.from(text)),
      )
    })
  }

  for (const [name, value] of values) {
    test(`does not write ${name}`, () => {
      // Reflect, because the types forbid these values already.
      assert.throws(() => Reflect.apply(canonicalJson, undefined, [value]), NotCanonical)
    })
  }

  for (const text of notCanonical) {
    test(`does not read ${JSON.stringify(text)} as canonical`, () => {
      assert.throws(() => parseCanonical(text), NotCanonical)
      assert.throws(() => parseCanonical(Buffer.from(text)), NotCanonical)
    })
  }

  test('bounds depth and size, and refuses bytes that are not UTF-8', () => {
    assert.equal(canonicalJson(parseCanonical(nested(32))), nested(32))
    assert.throws(() => parseCanonical(nested(33)), NotCanonical)
    assert.throws(() => parseCanonical(nested(100_000)), NotCanonical)
    assert.throws(() => parseCanonical('"\u20ac\u20ac"', 7), NotCanonical)
    assert.throws(() => parseCanonical(Buffer.from('22eda08022', 'hex')), NotCanonical)
  })
})

suite('policy/canonical parseJson', () => {
  test('reads what RFC 8259 allows', () => {
    const value = parseJson(
      ' { "b" : [ 1.5e0 , "\\ud83d\\ude00\\/" ],\t"__proto__":{} }\r\n',
      limits,
    )
    assert.equal(JSON.stringify(value), '{"b":[1.5,"\u{1F600}/"],"__proto__":{}}')
    assert.equal(Object.getPrototypeOf(value), null)
  })

  const texts = [
    '',
    '1 2',
    '{"a":1,"a":2}',
    '{"a":1,"\\u0061":2}',
    '"\\ud800"',
    '{"\\udc00":1}',
    '[1,]',
    '{,}',
    '{a:1}',
    '{1:1}',
    '[1',
    '"\n"',
    '01',
    '+1',
    '.5',
    '1.',
    '1e',
    '1e999',
    '9007199254740993',
    'NaN',
    'undefined',
    "'a'",
    '\ufeff{}',
    '/**/1',
    nested(5),
  ]
  for (const text of texts) {
    test(`refuses ${JSON.stringify(text)}`, () => {
      assert.throws(() => parseJson(text, limits), BadJsonText)
    })
  }

  test('bounds size and depth and names the offset', () => {
    assert.throws(() => parseJson(`"${'a'.repeat(4096)}"`, limits), BadJsonText)
    assert.throws(() => parseJson(Buffer.from('22ff22', 'hex'), limits), BadJsonText)
    assert.throws(() => parseJson('{"a":1,"a":2}', limits), { offset: 7 })
    assert.doesNotThrow(() => parseJson(nested(4), limits))
  })

  test('agrees with JSON.parse on long strings', () => {
    const text = JSON.stringify({ a: 'x'.repeat(3_000_000) })
    const value = parseJson(text, { bytesMax: 4_000_000, depthMax: 4 })
    assert.equal(JSON.stringify(value), text)
  })
})
