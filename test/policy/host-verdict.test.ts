import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { ActivePolicies } from '../../policy/cedar/policies.ts'
import {
  decide,
  type HostException,
  type HostFacts,
  type Plan,
  parseExceptableId,
  Refusal,
  type Severity,
  type Trust,
} from '../../policy/index.ts'
import { defaults, host, question, tenant } from './fixtures.ts'

const finding = (id: string, severity: Severity = 'severe') => ({
  id,
  severity,
  reason: `${id} is wrong.`,
  fix: `Mend ${id}.`,
})
const wrong = (...findings: readonly ReturnType<typeof finding>[]): HostFacts['findings'] => ({
  ...host().findings,
  findings,
})
const exception = (id: string, record = 7): HostException => ({
  finding: parseExceptableId(id),
  record,
})

function outcome(
  changes: Partial<HostFacts>,
  trust: Trust = 'untrusted',
  policies: ActivePolicies = defaults,
): Plan | Refusal {
  return decide(question({ tenant: tenant({ trust }), host: host(changes) }), policies)
}

function refused(found: Plan | Refusal): Refusal {
  assert.ok(found instanceof Refusal)
  return found
}

function planned(found: Plan | Refusal): Plan {
  assert.ok(!(found instanceof Refusal))
  return found
}

suite('policy/host-verdict', () => {
  for (const trust of ['untrusted', 'verified'] as const) {
    test(`refuses a tenant of trust ${trust} for each severe finding`, () => {
      const findings = wrong(finding('ksm'), finding('landlock', 'warning'), finding('smt'))
      const refusal = refused(outcome({ findings }, trust))
      assert.equal(refusal.code, 'HOST_UNSAFE')
      assert.deepEqual(refusal.facts, {
        findings: ['ksm', 'smt'],
        fixes: ['ksm: Mend ksm.', 'smt: Mend smt.'],
      })
      assert.deepEqual(refusal.policyIds, ['invariant.host-safe'])
    })
  }

  test('holds whatever the policy text says', () => {
    const everything = new ActivePolicies(
      { 'permit.all': '@reason("all") permit(principal, action, resource);' },
      new Map(),
    )
    const found = outcome({ findings: wrong(finding('smt')) }, 'untrusted', everything)
    assert.equal(refused(found).code, 'HOST_UNSAFE')
  })

  test('plans for a trusted tenant, who needs no exception, and names the findings', () => {
    const findings = wrong(finding('smt'))
    const { decision } = planned(outcome({ findings, exceptions: [exception('smt')] }, 'trusted'))
    assert.equal(decision.hostFindingsDigest, findings.digest)
    assert.deepEqual(decision.hostExceptions, [])
  })

  test('plans with an exception for every severe finding, and names those that it needed', () => {
    const findings = wrong(finding('cpu-mds'), finding('cgroups', 'warning'), finding('smt'))
    const exceptions = [exception('smt', 9), exception('ksm', 8), exception('cpu-mds', 7)]
    const { decision } = planned(outcome({ findings, exceptions }))
    assert.deepEqual(decision.hostExceptions, [exception('cpu-mds', 7), exception('smt', 9)])
    const some = refused(outcome({ findings, exceptions: [exception('smt')] }))
    assert.deepEqual(some.facts['findings'], ['cpu-mds'])
  })

  test('does not refuse for warnings', () => {
    const findings = wrong(finding('landlock', 'warning'))
    assert.deepEqual(planned(outcome({ findings })).decision.hostExceptions, [])
  })

  test('says first that there is no KVM at all', () => {
    const found = outcome({ kvm: null, findings: wrong(finding('kvm')) })
    assert.equal(refused(found).code, 'ISOLATION_UNAVAILABLE')
  })

  for (const id of ['smt', 'ksm', 'swap', 'kvm-device', 'cpu-mds', 'cpu-of-the-year-2031']) {
    test(`takes an exception for ${id}`, () => {
      assert.equal(parseExceptableId(id), id)
    })
  }

  for (const id of [
    'kvm',
    'kvm-nested',
    'kvm-paging',
    'kvm-capabilities',
    '',
    'SMT',
    'a b',
    'a/b',
    '-',
    'smt-',
    `cpu-${'x'.repeat(61)}`,
    7,
    null,
  ]) {
    test(`takes none for ${JSON.stringify(id)}`, () => {
      assert.throws(() => parseExceptableId(id), { code: 'BAD_NOUN' })
    })
  }
})
