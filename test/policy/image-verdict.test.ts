import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  type AcceptedSigner,
  type Evidence,
  type ImageRule,
  judgeImage,
  keysToTry,
  Refusal,
  type RefusalCode,
} from '../../policy/index.ts'
import {
  authority,
  document,
  evidence,
  image,
  imageDigest,
  imageRule,
  key,
  keyIdOf,
  newPem,
  ruleOf,
} from './fixtures.ts'

const { resolved } = image()
const second = { id: 'second', pem: newPem() }
const secondRule = (): ImageRule => ruleFor([authority([second])])
const ruleFor = (anyOf: unknown, threshold = 1, match = '**', name = 'one'): ImageRule =>
  ruleOf(document([{ name, match: [match], require: { all: [{ anyOf, threshold }] } }]))
const secondId = keyIdOf(secondRule())

const judge = (
  tenant: ImageRule | null,
  found: readonly Evidence[],
  floor: ImageRule | null = null,
): readonly AcceptedSigner[] | Refusal => judgeImage({ floor, tenant }, resolved, found)

const accepted = (verdict: readonly AcceptedSigner[] | Refusal): readonly string[] => {
  if (verdict instanceof Refusal) assert.fail(`${verdict.code}: ${verdict.message}`)
  return verdict.map((signer) => `${signer.rule}:${signer.key}`)
}
const refused = (verdict: readonly AcceptedSigner[] | Refusal, code: RefusalCode): Refusal => {
  assert.ok(verdict instanceof Refusal, 'accepted what must be refused')
  assert.equal(verdict.code, code)
  return verdict
}

suite('policy/image-verdict: one key', () => {
  test('accepts a signature of the key over this digest, in either form', () => {
    assert.deepEqual(accepted(judge(imageRule, [evidence()])), ['prod:release'])
    const bundle = evidence({ form: 'bundle', identity: null })
    assert.deepEqual(accepted(judge(imageRule, [bundle])), ['prod:release'])
  })

  test('refuses an image without signatures as unsigned', () => {
    const refusal = refused(judge(imageRule, []), 'IMAGE_UNSIGNED')
    assert.deepEqual(refusal.facts['accepted_keys'], [keyIdOf(imageRule)])
  })

  for (const [what, changes, code] of [
    ['of another key', { keyId: secondId }, 'IMAGE_SIGNER_NOT_ACCEPTED'],
    [
      'of no known key',
      { keyId: null, verified: false, reason: 'no_key_matches' },
      'IMAGE_SIGNER_NOT_ACCEPTED',
    ],
    [
      'that is malformed',
      { keyId: null, verified: false, reason: 'malformed' },
      'IMAGE_SIGNER_NOT_ACCEPTED',
    ],
    ['that was not verified', { verified: false }, 'IMAGE_SIGNER_NOT_ACCEPTED'],
    ['whose report contradicts itself', { reason: 'malformed' }, 'IMAGE_SIGNATURE_MISMATCH'],
    [
      'for another digest',
      { digest: `sha256:${'b'.repeat(64)}`, reason: 'digest_mismatch' },
      'IMAGE_SIGNATURE_MISMATCH',
    ],
    [
      'for another digest, said to be verified',
      { digest: `sha256:${'b'.repeat(64)}` },
      'IMAGE_SIGNATURE_MISMATCH',
    ],
    ['for no digest', { digest: null }, 'IMAGE_SIGNATURE_MISMATCH'],
    [
      'copied from another repository',
      { identity: 'registry.example.com/acme/old' },
      'IMAGE_SIGNATURE_MISMATCH',
    ],
    [
      'for a prefix of the repository',
      { identity: 'registry.example.com/acme' },
      'IMAGE_SIGNATURE_MISMATCH',
    ],
  ] as const) {
    test(`refuses a signature ${what}`, () => {
      refused(judge(imageRule, [evidence(changes)]), code)
    })
  }

  test('accepts a good signature among bad ones', () => {
    const many = [
      evidence({ keyId: null, verified: false, reason: 'malformed' }),
      evidence({ identity: 'registry.example.com/other' }),
      evidence(),
    ]
    assert.deepEqual(accepted(judge(imageRule, many)), ['prod:release'])
  })

  test('takes another repository in the payload when the rule says so', () => {
    const foreign = evidence({ identity: 'registry.example.com/other' })
    const rule = ruleFor([authority([key], 'anyRepository')])
    assert.deepEqual(accepted(judge(rule, [foreign])), ['one:release'])
  })

  test('refuses every image of a tenant without a rule, and those no rule matches', () => {
    refused(judge(null, [evidence()]), 'IMAGE_NOT_PERMITTED')
    refused(
      judge(ruleFor([authority([key])], 1, 'registry.example.com/other/**'), [evidence()]),
      'IMAGE_NOT_PERMITTED',
    )
  })
})

suite('policy/image-verdict: several keys and rules', () => {
  const both = evidence({ keyId: secondId })

  test('counts different keys, not signatures', () => {
    const rule = ruleFor([authority([key, second])], 2)
    refused(
      judge(rule, [evidence(), evidence({ form: 'bundle', identity: null })]),
      'IMAGE_SIGNER_NOT_ACCEPTED',
    )
    assert.deepEqual(accepted(judge(rule, [evidence(), both])), ['one:release', 'one:second'])
  })

  test('lets any authority of a requirement do, and asks for every requirement', () => {
    assert.deepEqual(accepted(judge(ruleFor([authority([key]), authority([second])]), [both])), [
      'one:second',
    ])
    const all = ruleOf(
      document([
        {
          name: 'two',
          match: ['**'],
          require: {
            all: [
              { anyOf: [authority([key])], threshold: 1 },
              { anyOf: [authority([second])], threshold: 1 },
            ],
          },
        },
      ]),
    )
    refused(judge(all, [both]), 'IMAGE_SIGNER_NOT_ACCEPTED')
    assert.equal(accepted(judge(all, [evidence(), both])).length, 2)
  })

  test('asks for every rule that matches, not only the first', () => {
    const rules = ruleOf(
      document([
        {
          name: 'wide',
          match: ['**'],
          require: { all: [{ anyOf: [authority([key])], threshold: 1 }] },
        },
        {
          name: 'narrow',
          match: ['registry.example.com/acme/web'],
          require: { all: [{ anyOf: [authority([second])], threshold: 1 }] },
        },
      ]),
    )
    refused(judge(rules, [evidence()]), 'IMAGE_SIGNER_NOT_ACCEPTED')
    assert.deepEqual(accepted(judge(rules, [evidence(), both])), ['wide:release', 'narrow:second'])
  })

  test('asks for the floor of the provider and the rule of the tenant', () => {
    const floor = ruleFor([authority([second])], 1, '**', 'floor')
    refused(judge(imageRule, [evidence()], floor), 'IMAGE_SIGNER_NOT_ACCEPTED')
    refused(judge(imageRule, [both], floor), 'IMAGE_SIGNER_NOT_ACCEPTED')
    assert.deepEqual(accepted(judge(imageRule, [evidence(), both], floor)), [
      'floor:second',
      'prod:release',
    ])
    refused(judge(null, [both], floor), 'IMAGE_NOT_PERMITTED')
    const elsewhere = ruleFor([authority([second])], 1, 'other.example.com/**')
    refused(judge(imageRule, [evidence(), both], elsewhere), 'IMAGE_NOT_PERMITTED')
  })

  test('names the keys to try: those of matching rules, of floor and tenant, each once', () => {
    const floor = ruleFor([authority([key, second])])
    const ids = keysToTry({ floor, tenant: imageRule }, resolved).map(({ keyId }) => keyId)
    assert.deepEqual(ids, [keyIdOf(imageRule), secondId])
    const other = { ...resolved, repository: 'other/web' }
    assert.deepEqual(keysToTry({ floor: null, tenant: imageRule }, other), [])
    assert.equal(resolved.digest, imageDigest)
  })
})
