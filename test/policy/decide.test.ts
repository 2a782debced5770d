import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { ActivePolicies } from '../../policy/cedar/policies.ts'
import {
  decide,
  ISOLATION_LEVELS,
  type LaunchQuestion,
  type Plan,
  parseCapability,
  parseEnvironment,
  parseMemoryMib,
  parseUser,
  parseVcpus,
  Refusal,
  UNTRUSTED_DEFAULT_CAPABILITIES,
} from '../../policy/index.ts'
import {
  defaults,
  evidence,
  host,
  image,
  imageRule,
  keyIdOf,
  pod,
  policiesWith,
  question,
  request,
  tenant,
} from './fixtures.ts'

const planned = (asked: LaunchQuestion, policies = defaults): Plan => {
  const decision = decide(asked, policies)
  assert.ok(!(decision instanceof Refusal), decision instanceof Refusal ? decision.message : '')
  return decision
}

const refused = (asked: LaunchQuestion, policies = defaults): Refusal => {
  const decision = decide(asked, policies)
  assert.ok(decision instanceof Refusal, 'a plan where a refusal was expected')
  return decision
}

const everythingPermitted = new ActivePolicies(
  { 'permit.all': '@reason("all") permit(principal, action, resource);' },
  new Map(),
)

suite('policy/decide: levels', () => {
  test('gives an untrusted tenant a VM, with the whole plan', () => {
    const plan = planned(question())
    assert.deepEqual(JSON.parse(JSON.stringify({ ...plan, decision: null, image: null })), {
      pod,
      tenant: 'acme',
      trust: 'untrusted',
      level: 'vm',
      kvm: 'hardware',
      vcpus: 1,
      memoryMib: 128,
      charge: { vcpus: 1, memoryMib: 128, pods: 1 },
      hostname: 'pod-0123456789ab',
      image: null,
      process: {
        args: ['/bin/web', '--port', '80'],
        env: ['PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin', 'A=1'],
        cwd: '/',
        user: '',
        additionalGids: [],
        capabilities: {
          ambient: [],
          bounding: UNTRUSTED_DEFAULT_CAPABILITIES,
          effective: UNTRUSTED_DEFAULT_CAPABILITIES,
          inheritable: [],
          permitted: UNTRUSTED_DEFAULT_CAPABILITIES,
        },
        rlimits: [{ type: 'RLIMIT_NOFILE', soft: 1024, hard: 524_288 }],
        noNewPrivileges: true,
        stopSignal: 15,
      },
      seccomp: 'default',
      readOnlyRoot: false,
      mounts: [],
      storedFiles: [],
      sysctls: [],
      networked: false,
      egress: null,
      names: { hosts: [], nameservers: [], options: [], search: [] },
      ports: [],
      health: null,
      scratchBytesMax: 8_589_934_592,
      limits: {
        bootMs: 600_000,
        bootLogBytes: 65_536,
        cpuQuotaPercent: 100,
        pids: 32,
        rates: {
          diskRead: {
            operations: { capacity: 20_000, burst: 20_000, refill: 20_000 },
            bytes: { capacity: 536_870_912, burst: 536_870_912, refill: 536_870_912 },
          },
          diskWrite: {
            operations: { capacity: 10_000, burst: 0, refill: 10_000 },
            bytes: { capacity: 268_435_456, burst: 0, refill: 268_435_456 },
          },
          rng: {
            operations: { capacity: 1000, burst: 0, refill: 1000 },
            bytes: { capacity: 1_048_576, burst: 0, refill: 1_048_576 },
          },
        },
        stopMs: 10_000,
        vmmOverheadMib: 64,
      },
      logBytes: 4_194_304,
      decision: null,
    })
    assert.deepEqual(plan.decision.policyIds, ['launch.own-tenant'])
    assert.deepEqual(plan.decision.permitted, ['vm'])
    assert.equal(plan.decision.imageRuleDigest, imageRule.digest)
    assert.equal(plan.decision.policySetDigest, defaults.digest)
    assert.match(plan.decision.cedarVersion, /^4\./u)
    assert.deepEqual(
      plan.image.signers.map((signer) => [signer.keyId, signer.key, signer.rule]),
      [[keyIdOf(imageRule), 'release', 'prod']],
    )
  })

  test('refuses level container to an untrusted tenant, with the policies and what is permitted', () => {
    const refusal = refused(question({ request: request({ isolation: 'container' }) }))
    assert.equal(refusal.code, 'ISOLATION_NOT_PERMITTED')
    assert.deepEqual(refusal.policyIds, [
      'isolation.level-file',
      'isolation.untrusted-needs-vm',
      'invariant.untrusted-needs-vm',
    ])
    assert.deepEqual(refusal.facts['permitted'], ['vm'])
    assert.match(refusal.message, /Permitted: vm\./u)
  })
})

suite('policy/decide: invariants', () => {
  for (const trust of ['untrusted', 'verified'] as const) {
    for (const isolation of ['container', 'host'] as const) {
      test(`refuses ${isolation} to a tenant of trust ${trust} when the policy permits everything`, () => {
        const refusal = refused(
          question({
            tenant: tenant({ trust }),
            request: request({ isolation }),
            host: host({
              levels: { acme: ['container', 'host'] },
              launchers: ISOLATION_LEVELS,
            }),
          }),
          everythingPermitted,
        )
        assert.equal(refusal.code, 'ISOLATION_NOT_PERMITTED')
        assert.deepEqual(refusal.policyIds, ['invariant.untrusted-needs-vm'])
        assert.deepEqual(refusal.facts['permitted'], ['vm'])
      })
    }
  }

  test('refuses a weaker level to a trusted tenant that the level file does not name', () => {
    const asked = question({
      tenant: tenant({ trust: 'trusted' }),
      request: request({ isolation: 'container' }),
      host: host({ levels: { acme: ['host'] }, launchers: ISOLATION_LEVELS }),
    })
    assert.deepEqual(refused(asked, everythingPermitted).policyIds, ['invariant.level-file'])
    assert.equal(refused(asked).code, 'ISOLATION_NOT_PERMITTED')
  })

  test('reads the level file by own members only', () => {
    const asked = question({
      tenant: tenant({ trust: 'trusted' }),
      request: request({ isolation: 'container' }),
      host: host({ levels: Object.create({ acme: ['container'] }) }),
    })
    assert.equal(refused(asked).code, 'ISOLATION_NOT_PERMITTED')
  })
})

suite('policy/decide: levels a host can give', () => {
  const trusted = {
    tenant: tenant({ trust: 'trusted' }),
    host: host({ levels: { acme: ['container'] } }),
  }
  test('says that a permitted level has no launcher yet', () => {
    const refusal = refused(question({ ...trusted, request: request({ isolation: 'container' }) }))
    assert.equal(refusal.code, 'ISOLATION_NOT_AVAILABLE')
  })

  test('grants exactly the requested level, not a stronger one', () => {
    const asked = question({
      tenant: trusted.tenant,
      request: request({ isolation: 'container' }),
      host: host({ levels: { acme: ['container'] }, launchers: ISOLATION_LEVELS }),
    })
    const plan = planned(asked)
    assert.equal(plan.level, 'container')
    assert.equal(plan.kvm, null)
    assert.deepEqual(plan.decision.permitted, ['vm', 'container'])
  })

  test('takes the strongest permitted level when none is asked for', () => {
    assert.equal(planned(question(trusted)).level, 'vm')
  })

  test('answers missing KVM with ISOLATION_UNAVAILABLE, never with a weaker level', () => {
    for (const kvm of [
      { kvm: null, kvmReason: '/dev/kvm is absent.' },
      { kvm: 'software', allowSoftwareKvm: false },
    ] as const) {
      const changed = host({ ...kvm, levels: { acme: ['container'] }, launchers: ISOLATION_LEVELS })
      const refusal = refused(question({ tenant: trusted.tenant, host: changed }))
      assert.equal(refusal.code, 'ISOLATION_UNAVAILABLE')
    }
    const absent = host({ kvm: null, kvmReason: '/dev/kvm is absent.' })
    assert.match(refused(question({ host: absent })).message, /\/dev\/kvm is absent/u)
  })

  test('counts software KVM as KVM when root allows it, and says so in the plan', () => {
    const plan = planned(question({ host: host({ kvm: 'software', allowSoftwareKvm: true }) }))
    assert.equal(plan.kvm, 'software')
  })
})

suite('policy/decide: refusals before the level', () => {
  test('refuses a suspended tenant first', () => {
    const refusal = refused(
      question({
        tenant: tenant({ suspended: true, imageRule: null }),
        image: image({ evidence: [] }),
      }),
    )
    assert.equal(refusal.code, 'TENANT_SUSPENDED')
  })

  test('refuses an unsigned image before asking about levels', () => {
    const asked = question({
      image: image({ evidence: [] }),
      request: request({ isolation: 'container' }),
    })
    assert.equal(refused(asked).code, 'IMAGE_UNSIGNED')
  })

  test('refuses capabilities beyond the trust of the tenant', () => {
    for (const name of ['CAP_NET_RAW', 'CAP_SYS_ADMIN']) {
      const capabilitiesAdd = [parseCapability(name)]
      const refusal = refused(question({ request: request({ capabilitiesAdd }) }))
      assert.equal(refusal.code, 'CAPABILITY_NOT_PERMITTED')
      assert.ok(refusal.policyIds.includes('capabilities.untrusted'))
    }
    const plan = planned(question({ tenant: tenant({ trust: 'trusted' }) }))
    assert.ok(plan.process.capabilities.bounding.includes('CAP_NET_RAW'))
  })

  test('takes dropped capabilities away', () => {
    const plan = planned(question({ request: request({ capabilitiesDrop: ['CAP_CHOWN'] }) }))
    assert.ok(!plan.process.capabilities.bounding.includes('CAP_CHOWN'))
    assert.equal(plan.process.capabilities.bounding.length, 11)
  })
})

suite('policy/decide: the process', () => {
  for (const [user, held] of [
    ['', true],
    ['0:5', true],
    ['root', true],
    ['1000', false],
    ['www-data:www-data', false],
  ] as const) {
    test(`gives user '${user}' ${held ? 'the' : 'no'} effective capabilities`, () => {
      const { process } = planned(question({ request: request({ user: parseUser(user) }) }))
      assert.equal(process.capabilities.effective.length > 0, held)
      assert.equal(process.capabilities.bounding.length, 12)
    })
  }

  test('lays the request over the image as docker run does', () => {
    const args = (changes: Parameters<typeof request>[0]): readonly string[] =>
      planned(question({ request: request(changes) })).process.args
    assert.deepEqual(args({ args: ['x'] }), ['/bin/web', 'x'])
    assert.deepEqual(args({ entrypoint: ['/bin/sh'] }), ['/bin/sh'])
    assert.deepEqual(args({ entrypoint: ['/bin/sh'], args: ['-c', 'id'] }), ['/bin/sh', '-c', 'id'])
    const env = parseEnvironment(['A=2', 'PATH=/p', 'B='])
    const { process } = planned(question({ request: request({ env }) }))
    assert.deepEqual(process.env, ['PATH=/p', 'A=2', 'B='])
  })

  for (const [what, config] of [
    ['no command', { entrypoint: [], cmd: [] }],
    ['a user number past 32 bits', { user: '4294967296' }],
    ['a user number that is "no change" to the kernel', { user: '4294967295' }],
    ['a group number that the guest does not take', { user: '0:2147483648' }],
    ['a NUL in an argument', { cmd: ['a\0b'] }],
    ['a relative directory', { workingDir: 'app' }],
    ['a lone surrogate', { cmd: ['\ud800'] }],
    ['a NUL in its environment', { env: ['A=\0'] }],
  ] as const) {
    test(`refuses an image with ${what}`, () => {
      const bad = image({ config: { ...image().config, ...config } })
      assert.equal(refused(question({ image: bad })).code, 'IMAGE_CONFIG_INVALID')
    })
  }
})

suite('policy/decide: sizes and quotas', () => {
  test('refuses what the quota does not hold, with the numbers', () => {
    const quotas = { ...tenant().quotas, memoryMib: { used: 900, limit: 1024 } }
    const refusal = refused(question({ tenant: tenant({ quotas }) }))
    assert.equal(refusal.code, 'QUOTA_EXCEEDED')
    assert.deepEqual(refusal.facts, { what: 'memory_mib', asked: 128, used: 900, limit: 1024 })
    const fits = { ...tenant().quotas, memoryMib: { used: 896, limit: 1024 } }
    assert.equal(planned(question({ tenant: tenant({ quotas: fits }) })).memoryMib, 128)
  })

  test('sizes what was asked for', () => {
    const sized = request({ vcpus: parseVcpus(2), memoryMib: parseMemoryMib(256) })
    const plan = planned(question({ request: sized }))
    assert.deepEqual([plan.vcpus, plan.memoryMib, plan.limits.cpuQuotaPercent], [2, 256, 200])
    assert.deepEqual(plan.charge, { vcpus: 2, memoryMib: 256, pods: 1 })
  })

  test('gives the VMM of a large machine more memory beside it', () => {
    const overhead = (mib: number): number => {
      const sized = request({ memoryMib: parseMemoryMib(mib) })
      const quotas = { ...tenant().quotas, memoryMib: { used: 0, limit: 20_000 } }
      const asked = question({ request: sized, tenant: tenant({ quotas }) })
      return planned(asked).limits.vmmOverheadMib
    }
    assert.deepEqual([128, 2048, 2050, 4096, 16_384].map(overhead), [64, 64, 65, 128, 512])
  })

  test('lets an operator launch for a tenant, under the same rules', () => {
    const principal = { kind: 'operator', uid: 0 } as const
    const plan = planned(question({ request: request({ principal }) }))
    assert.deepEqual(plan.decision.policyIds, ['launch.operator'])
    const weak = question({ request: request({ principal, isolation: 'container' }) })
    assert.equal(refused(weak).code, 'ISOLATION_NOT_PERMITTED')
  })
})

suite('policy/decide: policies of the operator', () => {
  test('names the policy of the operator that denies', () => {
    const policies = policiesWith({
      'site.small-only': `@reason("Small machines only.") forbid(principal, action == Casemate::Action::"launch", resource)
        when { context.memory_mib > 128 };`,
    })
    const sized = request({ memoryMib: parseMemoryMib(256) })
    const refusal = refused(question({ request: sized }), policies)
    assert.equal(refusal.code, 'POLICY_DENIED')
    assert.deepEqual(refusal.policyIds, ['site.small-only'])
    assert.match(refusal.message, /Small machines only\./u)
    assert.equal(planned(question(), policies).level, 'vm')
  })

  test('denies when a policy errors at evaluation', () => {
    // No canned question speaks of this repository, so the gate cannot find it.
    const policies = policiesWith({
      'site.overflow': `@reason("Arithmetic.") forbid(principal, action == Casemate::Action::"launch", resource)
        when { context.image.repository == "acme/web" && context.memory_mib * 9223372036854775807 < 0 };`,
    })
    const refusal = refused(question(), policies)
    assert.equal(refusal.code, 'POLICY_ERROR')
    assert.deepEqual(refusal.policyIds, ['site.overflow'])
  })

  test('does not fall to a weaker level because the strongest one errors', () => {
    const policies = policiesWith({
      'site.overflow': `@reason("Arithmetic.") forbid(principal, action == Casemate::Action::"launch", resource)
        when { context.image.repository == "acme/web" && context.isolation == Casemate::IsolationLevel::"vm"
          && context.memory_mib * 9223372036854775807 < 0 };`,
    })
    const asked = question({
      tenant: tenant({ trust: 'trusted' }),
      host: host({ levels: { acme: ['container'] }, launchers: ISOLATION_LEVELS }),
    })
    assert.equal(refused(asked, policies).code, 'POLICY_ERROR')
  })

  test('applies the floor of the provider beside the rule of the tenant', () => {
    const floor = host({ imageFloor: imageRule })
    assert.equal(planned(question({ host: floor })).decision.imageFloorDigest, imageRule.digest)
    const other = image({
      evidence: [evidence({ verified: false, keyId: null, reason: 'no_key_matches' })],
    })
    assert.equal(refused(question({ host: floor, image: other })).code, 'IMAGE_SIGNER_NOT_ACCEPTED')
  })
})
