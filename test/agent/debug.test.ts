/**
 * Why a pod does not run: each fault that is injected here names itself, to operators and, without what is the host's, to
 * its tenant. Faults inside a machine are told as spawn tells them; test/system has the machines, and
 * audit-unavailable.test.ts full disks.
 */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { generateSigningKey, IMAGE_ERROR_CODES } from '../../agent/images/index.ts'
import { stepOf } from '../../agent/tasks/debug-steps.ts'
import type { PodExit } from '../../native/spawn-answers.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { REFUSAL_CODES } from '../../policy/refusal.ts'
import { member, type Reply } from './harness.ts'
import { exitCode, type PodHost, podHost, run } from './pod-host.ts'
import { DESCRIPTION } from './spawn-peer.ts'

interface Both {
  readonly operator: unknown
  readonly tenant: unknown
}

async function debugOf(host: PodHost, pod: string): Promise<Both> {
  const call = { path: `/v1/tenants/acme/pods/${pod}/debug` }
  const [operator, tenant] = await Promise.all([
    host.agent.operator(call),
    host.agent.tenant(host.token, call),
  ])
  assert.deepEqual([operator.status, tenant.status], [200, 200], operator.text)
  return { operator: operator.json, tenant: tenant.json }
}

/** The newest pod of acme, refused ones too. */
async function newest(host: PodHost): Promise<string> {
  const reply = await host.agent.operator({ path: '/v1/tenants/acme/pods?limit=1' })
  const [pod] = member(reply.json, 'pods') as unknown[]
  return String(member(pod, 'launch'))
}

/** All else that a tenant hears of its pods. */
async function heardByTenant(host: PodHost): Promise<string> {
  const places = ['pods', `pods/${await newest(host)}`, 'events']
  const calls = places.map((place) =>
    host.agent.tenant(host.token, { path: `/v1/tenants/acme/${place}` }),
  )
  return (await Promise.all(calls)).map(({ text }) => text).join('\n')
}

const BOOT = Array.from({ length: 60 }, (_, line) => `boot line ${line}`)
const HOST_PATH = /\/(?:var|run|etc|tmp|root|sys|dev|work)\b/u

/** What each answer has to be, and that the tenant's is the same without the host's paths. */
function check({ operator, tenant }: Both, stage: string, code: string): void {
  for (const found of [operator, tenant]) {
    assert.deepEqual([member(found, 'stage'), member(found, 'code')], [stage, code])
    assert.ok(String(member(found, 'next')).length > 10)
    assert.equal(member(found, 'ended'), true)
  }
  for (const name of ['pod', 'launch', 'attempt', 'state', 'record', 'who', 'boot']) {
    assert.deepEqual(member(tenant, name), member(operator, name), name)
  }
  assert.deepEqual(
    Object.keys(member(tenant, 'facts') as object),
    Object.keys(member(operator, 'facts') as object),
  )
  assert.doesNotMatch(JSON.stringify(tenant), HOST_PATH)
  const isProvider = member(operator, 'who') === 'provider'
  assert.equal(member(tenant, 'next') !== member(operator, 'next'), isProvider)
}

const patch = async (host: PodHost, body: object): Promise<void> => {
  const reply = await host.agent.operator({ method: 'PATCH', path: '/v1/tenants/acme', body })
  assert.equal(reply.status, 200, reply.text)
}

const quotas = { vcpus: 4, memory_mib: 4096, pods: 16, launches_per_minute: 1000 }

interface Fault {
  readonly name: string
  readonly stage: string
  readonly code: string
  readonly inject: (host: PodHost) => Promise<void> | void
  readonly more?: object
  /** In the facts. */
  readonly facts?: Readonly<Record<string, Canonical>>
}

/** Before anything runs: the launch is refused or fails. */
const refused: readonly Fault[] = [
  {
    name: 'registry down',
    stage: 'IMAGE_PULL',
    code: 'REGISTRY_UNAVAILABLE',
    inject: ({ registry }) => {
      registry.intercept = () => ({ status: 500 })
    },
    facts: { failed_at: 'resolve' },
  },
  {
    name: 'a signature by a key that is not accepted',
    stage: 'VERIFY',
    code: 'IMAGE_SIGNER_NOT_ACCEPTED',
    inject: async (host) => {
      const tenant = await host.agent.operator({ path: '/v1/tenants/acme' })
      const rule = JSON.stringify(member(tenant.json, 'image_rule', 'rule'))
      const other = generateSigningKey().publicPem.replaceAll('\n', '\\n')
      const changed: unknown = JSON.parse(rule.replace(/-----BEGIN[^"]*/u, other))
      await patch(host, { image_rule: changed })
    },
    facts: { failed_at: 'decide' },
  },
  {
    name: 'quota',
    stage: 'QUOTA',
    code: 'QUOTA_EXCEEDED',
    inject: (host) => patch(host, { quotas: { ...quotas, pods: 0 } }),
    facts: { limit: 0 },
  },
  {
    name: 'a tenant that is suspended',
    stage: 'POLICY',
    code: 'TENANT_SUSPENDED',
    inject: (host) => patch(host, { state: 'suspended' }),
  },
  {
    name: 'no KVM',
    stage: 'VMM_START',
    code: 'ISOLATION_UNAVAILABLE',
    inject: ({ agent }) => {
      agent.spawn.answer('describe', () => ({
        ...DESCRIPTION,
        kvm: null,
        kvm_reason: '/dev/kvm cannot be opened',
      }))
    },
  },
  {
    name: 'a network that nobody may have',
    stage: 'POLICY',
    code: 'EGRESS_NOT_PERMITTED',
    inject: () => undefined,
    more: { network: 'default', egress: ['internet'] },
  },
  {
    name: 'a port that is taken',
    stage: 'NETWORK',
    code: 'PORT_TAKEN',
    inject: async (host) => {
      await patch(host, { ports: ['8000-8099'] })
      const reply = await host.launch('acme', undefined, {
        network: 'default',
        publish: ['8080:80'],
      })
      assert.equal(reply.status, 201, reply.text)
    },
    more: { network: 'default', publish: ['8080:90'] },
    facts: { port: 8080 },
  },
]

/** What spawn says no with. */
const bySpawn: readonly (readonly [name: string, stage: string, code: string, sentence: string])[] =
  [
    ['ticket mismatch', 'TICKET', 'TICKET_SPEC_DIGEST', 'the spec is another one'],
    ['disk full', 'SPAWN', 'SPAWN_STORAGE', 'a scratch disk in /var/lib/casemate/spawn: ENOSPC'],
    ['jail', 'JAIL', 'JAIL_FAILED', 'mount /sys/fs/cgroup/casemate/x (EPERM)'],
    ['network set-up', 'NETWORK', 'NETWORK_FAILED', 'ip link add in /run/casemate/ns: EOPNOTSUPP'],
    ['no room', 'SPAWN', 'HOST_FULL', 'no user id of 2000000 to 2000999 is free'],
    ['spawn away', 'SPAWN', 'SPAWN_UNREACHABLE', 'connect /run/casemate/spawn/spawn.sock'],
    ['another version', 'SPAWN', 'LAUNCH_FAILED', 'A_CODE_OF_LATER'],
  ]

const failure = (cause: string, text: string, value = 1): PodExit => ({
  how: 'failure',
  value,
  guest_reported: false,
  cause,
  text,
})
const vmm = (cause: string, text: string | null): PodExit => ({
  ...failure(cause, ''),
  how: 'vmm',
  value: 9,
  text,
})

/** How a machine ends, as spawn reports it. */
const ends: readonly (readonly [stage: string, code: string, exit: PodExit])[] = [
  ['RESTORE', 'TEMPLATE_STATE', failure('TEMPLATE_STATE', 'the state is of another VMM')],
  ['GUEST_INIT', 'BOOT_TIMEOUT', failure('BOOT_TIMEOUT', 'the guest did not say HELLO')],
  ['GUEST_INIT', 'GUEST_SILENT', failure('GUEST_SILENT', 'nothing after HELLO')],
  ['RUNNING', 'GUEST_PANIC', failure('GUEST_PANIC', 'the guest kernel panicked')],
  ['RUNNING', 'VERITY', failure('VERITY', 'block 7 of the image is not the one')],
  ['RUNNING', 'IO', failure('IO', 'writing /var/lib/casemate/x: ENOSPC')],
  ['RUNNING', 'VMM_SECCOMP', vmm('VMM_SECCOMP', 'its own seccomp filter killed it: openat')],
  ['RUNNING', 'VMM_OOM', vmm('VMM_OOM', 'out of memory')],
  ['RUNNING', 'APP_OOM', { ...exitCode(9), how: 'oom', cause: 'APP_OOM' }],
  ['APP_START', 'APP_NOT_FOUND', failure('APP_START', 'APP_NOT_FOUND: nope: not in the image')],
  [
    'APP_START',
    'APP_RUNTIME',
    failure(
      'APP_START',
      'APP_RUNTIME: the OCI runtime did not make the container: openat2 /sys/fs/cgroup/casemate/pod/cgroup.procs: EIO',
    ),
  ],
  ['ENDED', 'STOP_TIMEOUT', vmm('STOP_TIMEOUT', null)],
  ['ENDED', 'APP_EXIT', exitCode(3)],
]

const idOf = (reply: Reply): string => String(member(reply.json, 'id'))

suite('agent/debug: launches that did not come to run', () => {
  for (const { name, stage, code, inject, more, facts = {} } of refused) {
    test(`${name}: ${code}`, async (t) => {
      const host = await podHost(t)
      await inject(host)
      const reply = await host.launch('acme', undefined, more)
      assert.notEqual(reply.status, 201, reply.text)
      const found = await debugOf(host, await newest(host))
      check(found, stage, code)
      for (const [fact, value] of Object.entries(facts)) {
        assert.deepEqual(member(found.tenant, 'facts', fact), value, fact)
      }
      assert.deepEqual(member(found.tenant, 'boot'), [])
    })
  }

  test('what spawn says no to, by spawn’s own code', async (t) => {
    const host = await podHost(t)
    for (const [name, stage, code, sentence] of bySpawn) {
      host.refuseNext(code === 'LAUNCH_FAILED' ? sentence : code, sentence)
      const reply = await host.launch()
      assert.notEqual(reply.status, 201, name)
      const found = await debugOf(host, await newest(host))
      check(found, stage, code)
      assert.equal(member(found.operator, 'facts', 'failed_at'), 'start', name)
      assert.doesNotMatch(`${reply.text} ${await heardByTenant(host)}`, HOST_PATH)
    }
  })
})

suite('agent/debug: pods that ran', () => {
  test('each end has its stage, its code, its facts and the last 50 boot lines', async (t) => {
    const host = await podHost(t)
    await patch(host, { quotas })
    for (const [stage, code, exit] of ends) {
      const pod = idOf(await host.launch())
      const whole = `${BOOT.join('\r\n')}\r\n`
      await host.write(pod, 'of the app\n')
      await host.write(pod, whole.slice(0, 333), 3)
      await host.write(pod, whole.slice(333), 3)
      host.end(pod, exit)
      await host.until('its end', async () =>
        member(await host.inspect(pod), 'state') === 'exited' ? true : null,
      )
      const found = await debugOf(host, pod)
      check(found, stage, code)
      assert.deepEqual(member(found.tenant, 'boot'), BOOT.slice(-50))
      assert.deepEqual(member(found.operator, 'facts'), exit)
      assert.equal(member(found.operator, 'message'), exit.text)
      assert.doesNotMatch(await heardByTenant(host), HOST_PATH)
      if (code === 'VMM_SECCOMP') assert.match(String(member(found.tenant, 'message')), /openat/u)
    }
  })

  test('nothing is wrong with one that runs, and another tenant’s is not there', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { name: 'web' })
    const { tenant } = await debugOf(host, 'web')
    assert.deepEqual(
      ['pod', 'stage', 'code', 'ended'].map((name) => member(tenant, name)),
      [pod, 'RUNNING', null, false],
    )
    const token = await host.admit('bolt')
    for (const tenantOf of ['acme', 'bolt']) {
      const other = await host.agent.tenant(token, {
        path: `/v1/tenants/${tenantOf}/pods/${pod}/debug`,
      })
      assert.deepEqual([other.status, member(other.json, 'code')], [404, 'NOT_FOUND'])
    }
  })
})

suite('agent/debug: the table', () => {
  test('knows every code by which a launch is refused, or a pod ends', () => {
    const root = path.resolve(import.meta.dirname, '../..')
    const read = (file: string): string => readFileSync(path.join(root, file), 'utf8')
    const named = (file: string): string[] =>
      [...read(file).matchAll(/^\s+\w+ = \d+, "([A-Z_]+)";/gmu)].map(([, code = '']) => code)
    const guest = named('native/wire/src/payload.rs').filter((code) => !code.startsWith('EXEC_'))
    const byVmm = named('native/wire/src/control.rs').filter((code) => code !== 'APP_START')
    assert.ok(guest.length > 8 && byVmm.length > 16)
    const formats = read('docs/formats.md')
    const ofVmm = /vmm {6}signal or code {3}([\s\S]*?)\n\nThe kernel/u.exec(formats)?.[1] ?? ''
    const causes = [...ofVmm.matchAll(/[A-Z_]{5,}/gu)].map(([code]) => code)
    assert.ok(causes.length > 10, ofVmm)
    const all = [...guest, ...byVmm, ...causes, ...REFUSAL_CODES, ...IMAGE_ERROR_CODES]
    assert.deepEqual(
      all.filter((code) => stepOf(code) === null),
      [],
    )
  })
})
