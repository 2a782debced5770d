/** The command line as scripts see it: standard output, standard error, exit codes. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { exitCodeOfPod } from '../../agent/cli/ended.ts'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import { generateSigningKey } from '../../agent/images/index.ts'
import { member, startAgent, type TestAgent } from './harness.ts'
import { layOut } from './host/layout.ts'
import { DESCRIPTION } from './spawn-peer.ts'

const cli = path.resolve(import.meta.dirname, '../../agent/cli/main.ts')

interface Ran {
  readonly code: number
  readonly stdout: string
  readonly stderr: string
}

function casemate(...args: readonly string[]): Promise<Ran> {
  const env = { PATH: process.env['PATH'], NO_COLOR: '1' }
  return new Promise((resolve) => {
    execFile(process.execPath, [cli, ...args], { env }, (error, stdout, stderr) => {
      resolve({ code: Number(error?.code ?? 0), stdout, stderr })
    })
  })
}

const asOperator = (agent: TestAgent): readonly string[] => [
  '--socket',
  path.join(agent.directory, 'run', AGENT_SOCKET),
]

suite('agent/cli for operators', () => {
  test('onboards a tenant with an image rule, and prints a token and nothing else', async (t) => {
    const agent = await startAgent(t)
    const operator = asOperator(agent)
    const rule = path.join(agent.directory, 'rule.json')
    const key = { id: 'release', pem: generateSigningKey().publicPem }
    const authority = { type: 'cosign-key', keys: [key], transparency: 'none' }
    const anyOf = [{ ...authority, identityMatch: 'exactRepository' }]
    const rules = [
      { name: 'all', match: ['registry.example/**'], require: { all: [{ anyOf, threshold: 1 }] } },
    ]
    writeFileSync(rule, JSON.stringify({ schemaVersion: 1, default: 'deny', rules }))
    const created = await casemate(
      ...operator,
      'tenant',
      'create',
      'acme',
      '--image-rule',
      rule,
      '--quota',
      '2,512,3,9,5,4096',
    )
    assert.equal(created.code, 0, created.stderr)
    const shown = await casemate(...operator, '-o', 'json', 'tenant', 'show', 'acme')
    const tenant: unknown = JSON.parse(shown.stdout)
    assert.equal(member(tenant, 'trust'), 'untrusted')
    assert.deepEqual(member(tenant, 'quotas', 'memory_mib'), { used: 0, limit: 512 })
    assert.deepEqual(member(tenant, 'quotas', 'launches_per_minute'), { limit: 9 })
    assert.deepEqual(member(tenant, 'quotas', 'volumes'), { limit: 5 })
    assert.deepEqual(member(tenant, 'quotas', 'volume_mib'), { limit: 4096 })
    assert.match(String(member(tenant, 'image_rule', 'digest')), /^sha256:/u)
    const issued = await casemate(...operator, '-t', 'acme', 'token', 'issue', '--name', 'ci')
    assert.match(issued.stdout, /^[\w-]+\.[\w-]+\.[\w-]+\n$/u)
    assert.equal(issued.stderr, '')
    const listed = await casemate(...operator, 'tenant', 'list')
    assert.match(listed.stdout, /^TENANT +TRUST[^\n]*\nacme +untrusted/u)
    const change = ['tenant', 'change', 'acme', '--state', 'suspended', '--trust', 'verified']
    const changed = await casemate(...operator, '-o', 'json', ...change)
    assert.equal(changed.code, 0, changed.stderr)
    const after: unknown = JSON.parse(changed.stdout)
    assert.deepEqual([member(after, 'state'), member(after, 'trust')], ['suspended', 'verified'])
    assert.deepEqual(member(after, 'image_rule'), member(tenant, 'image_rule'))
    const nothing = await casemate(...operator, 'tenant', 'change', 'acme')
    assert.notEqual(nothing.code, 0)
  })

  test('shows records, and checks receipts and the whole log against the key', async (t) => {
    const agent = await startAgent(t)
    await agent.onboard('acme')
    const operator = asOperator(agent)
    const vkey = path.join(agent.directory, 'vkey')
    const shown = await casemate(...operator, 'audit', 'show')
    assert.match(shown.stdout, /log\.genesis[^]*tenant\.created/u)
    const receipt = await casemate(
      ...operator,
      '-o',
      'json',
      'audit',
      'receipt',
      '1',
      '--verify',
      vkey,
    )
    assert.equal(member(JSON.parse(receipt.stdout), 'verified'), true, receipt.stderr)
    const other = path.join(agent.directory, 'other')
    const wrong = readFileSync(vkey, 'utf8').replace(/\+A.(.*)$/mu, '+AA$1')
    writeFileSync(other, wrong)
    const refused = await casemate(...operator, 'audit', 'receipt', '1', '--verify', other)
    assert.notEqual(refused.code, 0)
    await agent.end()
    const log = path.join(agent.stateDir, 'audit')
    const verified = await casemate('audit', 'verify', log, '--vkey', vkey)
    assert.equal(verified.code, 0, verified.stdout + verified.stderr)
    assert.match(verified.stdout, /not excluded/u)
  })

  test('doctor fails when something does not work', async (t) => {
    const agent = await startAgent(t)
    agent.spawn.answer('describe', () => ({ ...DESCRIPTION, allow_software_kvm: false }))
    const { code, stdout } = await casemate(...asOperator(agent), 'doctor')
    assert.equal(code, 1)
    assert.match(stdout, /kvm +failed/u)
    assert.match(stdout, /audit +ok/u)
  })

  test('sets a finding aside, and doctor says until when and what to do instead', async (t) => {
    const root = layOut(t, { 'sys/kernel/mm/ksm/run': '1' })
    const agent = await startAgent(t, { surroundings: { root } })
    const hardware = { ...DESCRIPTION, kvm: 'hardware', allow_software_kvm: false } as const
    agent.spawn.answer('describe', () => hardware)
    const operator = asOperator(agent)
    const failed = await casemate(...operator, 'doctor')
    assert.equal(failed.code, 1)
    assert.match(failed.stdout, /^ksm +failed +severe +KSM merges/mu)
    assert.match(failed.stdout, /^ksm: echo 2 > /mu)
    const until = new Date(Date.now() + 600_000).toISOString()
    const add = ['host', 'exception', 'add', 'ksm', '--until', until, '--reason', 'Until we move']
    const added = await casemate(...operator, ...add)
    assert.equal(added.code, 0, added.stderr)
    const listed = await casemate(...operator, 'host', 'exception', 'list')
    assert.match(listed.stdout, /^FINDING +STATE[^\n]*\nksm +active +\S+ +uid:\d+ +\d+ +Until we/u)
    const doctor = await casemate(...operator, 'doctor')
    assert.equal(doctor.code, 0, doctor.stdout)
    assert.match(doctor.stdout, /^ksm +warning +severe/mu)
    assert.match(doctor.stdout, new RegExp(`Set aside until ${until}: Until we move`, 'u'))
    assert.equal((await casemate(...operator, 'host', 'exception', 'rm', 'ksm')).code, 0)
    assert.equal((await casemate(...operator, 'host', 'exception', 'rm', 'ksm')).code, 3)
    assert.equal((await casemate(...operator, 'doctor')).code, 1)
    assert.equal((await casemate(...operator, 'host', 'exception', 'add', 'ksm')).code, 2)
  })
})

suite('agent/cli exit codes', () => {
  test('2 for wrong usage, and nothing on standard output', async () => {
    for (const args of [
      ['nonsense'],
      ['run'],
      ['ps', '--nonsense'],
      ['tenant', 'create', 'a', '--quota', 'x'],
      ['tenant', 'create', 'a', '--quota', '1,2'],
      ['tenant', 'create', 'a', '--quota', '1,2,'],
      ['tenant', 'create', 'a', '--quota', '1,2,3,4,5'],
    ]) {
      const { code, stdout } = await casemate(...args)
      assert.equal(code, 2, args.join(' '))
      assert.equal(stdout, '')
    }
    assert.equal((await casemate('--socket', '/nowhere', 'ps')).code, 2)
    assert.equal((await casemate('--version')).code, 0)
  })

  test('69 when nobody answers', async () => {
    const { code, stderr } = await casemate('--socket', '/nowhere.sock', 'tenant', 'list')
    assert.equal(code, 69)
    assert.match(stderr, /does not answer/u)
  })

  test('6 of doctor --vm for who is not root, with a code and what to do', async (t) => {
    if (process.geteuid?.() !== 0) return t.skip('not root: nobody cannot be anybody else')
    const nobody = { uid: 65_534, gid: 65_534, env: { PATH: process.env['PATH'], NO_COLOR: '1' } }
    const told = await new Promise<string>((resolve) => {
      execFile(process.execPath, [cli, 'doctor', '--vm'], nobody, (error, stdout, stderr) => {
        resolve(`${error?.code ?? 0} ${stdout}${stderr}`)
      })
    })
    assert.match(told, /^6 casemate: .*needs root.*sudo\. \(SELF_TEST_NOT_ROOT\)\n$/u)
  })

  test('1 of doctor when there is no agent to ask, and what to do in one line', async () => {
    const { code, stdout, stderr } = await casemate('--socket', '/nowhere.sock', 'doctor')
    assert.equal(code, 1)
    assert.equal(stdout, '')
    assert.match(stderr, /^casemate: .*\/nowhere\.sock does not answer.*casemate up.*\n$/u)
    const json = await casemate('--socket', '/nowhere.sock', '-o', 'json', 'doctor')
    assert.equal(json.code, 1)
    const [check] = Object(member(JSON.parse(json.stdout), 'checks')) as unknown[]
    assert.deepEqual([member(check, 'id'), member(check, 'status')], ['agent', 'failed'])
  })

  test('3 for what is not there, 6 without access, 7 for what is there already', async (t) => {
    const agent = await startAgent(t)
    const token = path.join(agent.directory, 'token')
    writeFileSync(token, await agent.onboard('acme'))
    const url = `https://127.0.0.1:${agent.httpsPort}`
    const tenant = ['--url', url, '--ca', agent.certificate, '--token-file', token]
    const nobody = await casemate(...tenant, 'inspect', '01890000-0000-7000-8000-000000000000')
    assert.equal(nobody.code, 3)
    assert.equal((await casemate(...tenant, 'tenant', 'list')).code, 6)
    const twice = await casemate(...asOperator(agent), 'tenant', 'create', 'acme')
    assert.equal(twice.code, 7)
    assert.match(twice.stderr, /TENANT_EXISTS/u)
    const json = await casemate(...tenant, '-o', 'json', 'run', '-d', 'not a reference')
    assert.equal(member(JSON.parse(json.stdout), 'code'), 'IMAGE_REFERENCE_INVALID')
    assert.equal(json.code, 2)
    const foreground = await casemate(...tenant, 'run', 'not a reference')
    assert.equal(foreground.code, 125)
    writeFileSync(token, 'garbage')
    assert.equal((await casemate(...tenant, 'ps', '-t', 'acme')).code, 6)
  })

  test('trusts no other certificate than the one it was given', async (t) => {
    const agent = await startAgent(t)
    const token = path.join(agent.directory, 'token')
    writeFileSync(token, await agent.onboard('acme'))
    const url = `https://127.0.0.1:${agent.httpsPort}`
    const flags = ['--url', url, '--ca', '/nowhere', '--token-file', token]
    const { code, stderr } = await casemate(...flags, 'ps')
    assert.equal(code, 69)
    assert.match(stderr, /certificate/u)
  })

  test('of a foreground run are the pod’s', () => {
    const ends: readonly (readonly [object, number])[] = [
      [{ how: 'code', value: 0 }, 0],
      [{ how: 'code', value: 42 }, 42],
      [{ how: 'signal', value: 15 }, 143],
      [{ how: 'oom', value: 9 }, 137],
      [{ how: 'failure', value: 18, cause: 'APP_START', text: 'APP_NOT_FOUND: /nope' }, 127],
      [{ how: 'failure', value: 18, cause: 'APP_START', text: 'APP_NOT_EXECUTABLE: /x' }, 126],
      [{ how: 'failure', value: 9, cause: 'VERITY', text: 'a block is not what was signed' }, 125],
      [{ how: 'vmm', value: 31, cause: 'VMM_SECCOMP', text: 'openat' }, 125],
    ]
    for (const [exit, code] of ends) assert.equal(exitCodeOfPod(exit), code, JSON.stringify(exit))
  })
})
