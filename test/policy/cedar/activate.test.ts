import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import {
  activatePolicies,
  BadPolicySet,
  DEFAULT_POLICIES,
  POLICIES_MAX,
  POLICY_BYTES_MAX,
  type PolicyTexts,
} from '../../../policy/index.ts'
import { defaults } from '../fixtures.ts'

const refuse = (texts: PolicyTexts, problem: RegExp, policyId: string | null): void => {
  assert.throws(
    () => activatePolicies(texts),
    (error) => {
      assert.ok(error instanceof BadPolicySet, String(error))
      const found = error.findings.find((one) => problem.test(one.problem))
      assert.ok(found, error.message)
      assert.equal(found.policyId, policyId)
      return true
    },
  )
}
const added = (text: string): PolicyTexts => ({ ...DEFAULT_POLICIES, site: text })

suite('policy/cedar/activate', () => {
  test('activates the shipped policies, with digests that depend on the text alone', () => {
    const again = activatePolicies(
      Object.fromEntries(Object.entries(DEFAULT_POLICIES).toReversed()),
    )
    assert.equal(again.digest, defaults.digest)
    assert.notEqual(activatePolicies(added(site)).digest, defaults.digest)
    assert.equal(defaults.note('isolation.untrusted-needs-vm')?.code, 'ISOLATION_NOT_PERMITTED')
    assert.equal(defaults.note('unknown'), null)
  })
  const site =
    '@reason("ok") forbid(principal, action == Casemate::Action::"launch", resource) when { context.vcpus > 1 };'

  for (const [what, text, problem] of [
    ['does not parse', 'forbid(principal, action', /unexpected end/u],
    ['holds two policies', `${site} ${site}`, /unexpected token/u],
    [
      'is a template',
      '@reason("x") permit(principal == ?principal, action, resource);',
      /template/u,
    ],
    [
      'gives no reason',
      'forbid(principal, action, resource) when { context.vcpus > 1 };',
      /@reason/u,
    ],
    ['has an empty reason', site.replace('"ok"', '" "'), /@reason/u],
    ['invents a code', `@code("X") ${site}`, /refusal code/u],
    ['names no attribute', site.replace('vcpus', 'vcpu'), /vcpu/u],
    [
      'misspells a trust',
      `@reason("x") forbid(principal, action, resource is Casemate::Pod)
      when { resource.tenant.trust == Casemate::Trust::"trustd" };`,
      /trustd/u,
    ],
    [
      'is not Boolean',
      '@reason("x") forbid(principal, action, resource) when { (1 + 1) };',
      /Bool/u,
    ],
    [
      'can never fire',
      '@reason("x") forbid(principal, action, resource) when { false };',
      /impossible/u,
    ],
    [
      'hides letters that look like others',
      `@reason("x") forbid(principal, action, resource)
      when { context.image.registry == "reg\u0456stry.example.com" };`,
      /script|confusable/u,
    ],
    [
      'overflows on a canned question',
      `@reason("x") forbid(principal, action == Casemate::Action::"launch", resource)
      when { context.memory_mib * 9223372036854775807 > 0 };`,
      /errors on/u,
    ],
  ] as const) {
    test(`refuses a policy that ${what}`, () => {
      refuse(added(text), problem, 'site')
    })
  }

  test('refuses a set that allows what must never be allowed, naming the policy', () => {
    const { 'isolation.untrusted-needs-vm': _gone, ...rest } = DEFAULT_POLICIES
    refuse(
      rest,
      /untrusted tenant, level container, signed", which must be denied/u,
      'launch.own-tenant',
    )
    refuse({ all: '@reason("x") permit(principal, action, resource);' }, /must be denied/u, 'all')
  })

  test('activates a set that denies everything', () => {
    const shut = activatePolicies({ shut: '@reason("shut") forbid(principal, action, resource);' })
    assert.equal(Object.keys(shut.texts).length, 1)
  })
})

const filler = (bytes: number): string =>
  `// ${'x'.repeat(bytes)}\n${DEFAULT_POLICIES['tenant.suspended'] ?? ''}`

const deep = (count: number): string =>
  `@reason("x") forbid(principal, action == Casemate::Action::"launch", resource) when { ${'('.repeat(count)}context.vcpus > 1${')'.repeat(count)} };`

suite('policy/cedar/activate: sizes', () => {
  test('refuses text that is too large, without parsing it', () => {
    refuse(added(filler(POLICY_BYTES_MAX)), /at most 65536 bytes/u, 'site')
    const many = Object.fromEntries(
      Array.from({ length: 9 }, (_, index) => [`p${index}`, filler(60_000)]),
    )
    refuse(many, /at most 524288 bytes/u, null)
  })

  test('refuses too many policies and none', () => {
    const many = Object.fromEntries(
      Array.from({ length: POLICIES_MAX + 1 }, (_, index) => [`p${index}`, 'x']),
    )
    refuse(many, /1 to 500 policies/u, null)
    refuse({}, /1 to 500 policies/u, null)
  })

  test('refuses nesting that would overflow the stack of the parser', () => {
    refuse(added(deep(20_000)), /nest deeper/u, 'site')
    refuse(added(deep(64)), /nest deeper/u, 'site')
    assert.equal(Object.keys(activatePolicies(added(deep(20))).texts).length, 18)
  })

  test('refuses without a throw of another kind when brackets hide in strings', () => {
    const hidden = `@reason("${')'.repeat(9000)}") forbid(principal, action, resource) when { ${'!('.repeat(9000)}true${')'.repeat(9000)} };`
    assert.throws(() => activatePolicies(added(hidden)), BadPolicySet)
  })

  for (const id of ['', 'A', 'a b', 'a/b', '__proto__x', 'a'.repeat(65)]) {
    test(`refuses the policy id '${id.slice(0, 12)}'`, () => {
      refuse({ ...DEFAULT_POLICIES, [id]: 'x' }, /ids must be/u, null)
    })
  }
})
