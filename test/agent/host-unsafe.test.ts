/**
 * A host that fails a severe check: who is refused, who is not, what an exception changes and for how
 * long. The host is laid out as files, spawn says what the test has it say; store, log, policy, image
 * and workers are real, and launches go as far as spawn's no.
 */
import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import { spawnClient } from '../../native/spawn-client.ts'
import { member, type Reply, type TestAgent } from './harness.ts'
import { CPU, type Files, layOut, write } from './host/layout.ts'
import { runWorkerInChild } from './images/support/worker.ts'
import { DESCRIPTION } from './spawn-peer.ts'
import { records, type Stage, stage } from './stage.ts'

const HARDWARE = { ...DESCRIPTION, kvm: 'hardware', allow_software_kvm: false } as const
const SMT: Files = { [`${CPU}/smt/active`]: '1' }
/** How long exceptions are for here; less than a token's life. */
const WHILE = 1_200_000
const DAY = 86_400_000

interface Unsafe extends Stage {
  /** Changes files of the host. */
  change(files: Files): void
  /** Moves the agent's clock. */
  pass(ms: number): void
  /** An instant so many ms from the agent's now, as RFC 3339. */
  ahead(ms: number): string
}

/** A host with hardware KVM that is good but for `files`. */
async function unsafe(t: TestContext, files: Files): Promise<Unsafe> {
  const root = layOut(t, files)
  let skew = 0
  const now = (): number => Date.now() + skew
  const on = await stage(t, {
    surroundings: {
      root,
      now,
      spawn: (socket) => ({ ...spawnClient(socket), worker: runWorkerInChild }),
    },
  })
  on.agent.spawn.answer('describe', () => HARDWARE)
  return {
    ...on,
    change: (changes) => {
      write(root, changes)
    },
    pass: (ms) => {
      skew += ms
    },
    ahead: (ms) => new Date(now() + ms).toISOString(),
  }
}

const codeOf = (reply: Reply): unknown => member(reply.json, 'code')

const ofType = async (agent: TestAgent, type: string): Promise<readonly unknown[]> =>
  (await records(agent)).filter((record) => member(record, 'type') === type)

const add = (on: Unsafe, finding: string, more: object = {}): Promise<Reply> =>
  on.agent.operator({
    method: 'POST',
    path: '/v1/host/exceptions',
    body: { finding, reason: 'The machine goes in May', until: on.ahead(WHILE), ...more },
  })

async function exceptions(on: Unsafe): Promise<readonly unknown[]> {
  const { json } = await on.agent.operator({ path: '/v1/host/exceptions' })
  return Object(member(json, 'exceptions')) as unknown[]
}

/** A launch that gets past the decision ends at spawn, with its intent on record. */
async function admits(on: Unsafe, tenant = 'acme'): Promise<unknown> {
  const before = (await ofType(on.agent, 'launch.intent')).length
  const reply = await on.launch(tenant)
  assert.deepEqual([reply.status, codeOf(reply)], [502, 'LAUNCH_FAILED'], reply.text)
  const intents = await ofType(on.agent, 'launch.intent')
  assert.equal(intents.length, before + 1)
  return intents.at(-1)
}

async function refuses(on: Unsafe, tenant = 'acme'): Promise<Reply> {
  const { requests } = on.agent.spawn
  const before = requests.length
  const reply = await on.launch(tenant)
  assert.deepEqual([reply.status, codeOf(reply)], [503, 'HOST_UNSAFE'], reply.text)
  const asked = requests.slice(before).map(({ op }) => op)
  assert.ok(!asked.some((op) => op === 'launch' || op === 'worker'), asked.join(' '))
  return reply
}

suite('agent/an unsafe host', () => {
  test('launches nothing for tenants that are not trusted, says why and what to do, on record', async (t) => {
    const on = await unsafe(t, { ...SMT, 'sys/kernel/mm/ksm/run': '1' })
    await on.admit('known', 'verified')
    for (const tenant of ['acme', 'known']) {
      const { json } = await refuses(on, tenant)
      assert.deepEqual(member(json, 'facts', 'findings'), ['ksm', 'smt'])
      assert.match(String(member(json, 'facts', 'fixes', '1')), /^smt: echo off > /u)
      assert.match(String(member(json, 'detail')), /\(ksm, smt\).*casemate doctor/u)
      assert.deepEqual(member(json, 'policies'), ['invariant.host-safe'])
    }
    const refused = await ofType(on.agent, 'launch.refused')
    assert.deepEqual(
      refused.map((one) => [member(one, 'tenant'), member(one, 'refusal', 'code')]),
      [
        ['acme', 'HOST_UNSAFE'],
        ['known', 'HOST_UNSAFE'],
      ],
    )
  })

  test('launches for trusted tenants, and the record names what was found', async (t) => {
    const on = await unsafe(t, SMT)
    await on.admit('own', 'trusted')
    const intent = await admits(on, 'own')
    const [examined] = await ofType(on.agent, 'host.examined')
    assert.deepEqual(
      Object(member(examined, 'findings')).map((one: unknown) => member(one, 'id')),
      ['smt'],
    )
    assert.equal(member(intent, 'host', 'findings'), member(examined, 'digest'))
    assert.deepEqual(member(intent, 'host', 'exceptions'), [])
  })

  test('is one from the moment it becomes so, and no longer than it is', async (t) => {
    const on = await unsafe(t, {})
    const first = await admits(on)
    on.change(SMT)
    await refuses(on)
    on.change({ [`${CPU}/smt/active`]: '0' })
    const second = await admits(on)
    assert.deepEqual(member(second, 'host'), member(first, 'host'))
    // Said once: the second launch found what the first had.
    assert.equal((await ofType(on.agent, 'host.examined')).length, 1)
  })

  test('launches again when nothing is wrong that would be severe', async (t) => {
    const on = await unsafe(t, { 'proc/self/mountinfo': '' })
    const intent = await admits(on)
    const [examined] = await ofType(on.agent, 'host.examined')
    assert.equal(member(examined, 'findings', '0', 'severity'), 'warning')
    assert.equal(member(intent, 'host', 'findings'), member(examined, 'digest'))
  })
})

suite('agent/exceptions for an unsafe host', () => {
  test('admit launches until their time is over; they and the launch are on record', async (t) => {
    const on = await unsafe(t, SMT)
    await refuses(on)
    const until = on.ahead(WHILE)
    const made = await add(on, 'smt', { until })
    assert.equal(made.status, 201, made.text)
    const all = await records(on.agent)
    const index = all.findIndex((record) => member(record, 'type') === 'host.exception_added')
    assert.equal(member(made.json, 'record'), index)
    const { finding, reason, until: end, actor } = Object(all[index])
    assert.deepEqual([finding, reason, end], ['smt', 'The machine goes in May', until])
    assert.equal(member(actor, 'kind'), 'operator')
    const intent = await admits(on)
    assert.deepEqual(member(intent, 'host', 'exceptions'), [{ finding: 'smt', record: index }])
    const [examined] = await ofType(on.agent, 'host.examined')
    assert.equal(member(intent, 'host', 'findings'), member(examined, 'digest'))
    on.pass(WHILE - 60_000)
    await admits(on)
    on.pass(60_000)
    await refuses(on)
    assert.equal(member((await exceptions(on))[0], 'state'), 'expired')
  })

  test('help against their own finding only', async (t) => {
    const on = await unsafe(t, { ...SMT, 'sys/kernel/mm/ksm/run': '1' })
    assert.equal((await add(on, 'ksm')).status, 201)
    const { json } = await refuses(on)
    assert.deepEqual(member(json, 'facts', 'findings'), ['smt'])
    assert.equal((await add(on, 'smt')).status, 201)
    const intent = await admits(on)
    const used = Object(member(intent, 'host', 'exceptions')) as unknown[]
    assert.deepEqual(
      used.map((one) => member(one, 'finding')),
      ['ksm', 'smt'],
    )
  })

  test('are replaced, survive a restart, and are taken back at once, on record', async (t) => {
    const on = await unsafe(t, SMT)
    await add(on, 'smt', { until: on.ahead(60_000) })
    await add(on, 'smt', { reason: 'Until June then' })
    await on.agent.end()
    await on.agent.again()
    on.pass(120_000)
    const [only, ...more] = await exceptions(on)
    assert.equal(more.length, 0)
    assert.deepEqual([member(only, 'reason'), member(only, 'state')], ['Until June then', 'active'])
    await admits(on)
    const remove = { method: 'DELETE', path: '/v1/host/exceptions/smt' } as const
    assert.equal((await on.agent.operator(remove)).status, 204)
    await refuses(on)
    assert.equal((await on.agent.operator(remove)).status, 404)
    const [removed, ...others] = await ofType(on.agent, 'host.exception_removed')
    assert.equal(others.length, 0)
    assert.equal(member(removed, 'finding'), 'smt')
    assert.equal(member(removed, 'actor', 'kind'), 'operator')
  })

  test('are refused for what nobody can set aside, for what is not there, and without an end', async (t) => {
    const on = await unsafe(t, { ...SMT, 'sys/module/kvm_intel/parameters/nested': 'Y' })
    for (const [finding, more, says] of [
      [
        'kvm-nested',
        {},
        /for kvm, kvm-capabilities, kvm-nested, kvm-paging there is no exception/u,
      ],
      ['ksm', {}, /no severe finding ksm .*Severe now: kvm-nested, smt/u],
      ['landlock', {}, /no severe finding landlock/u],
      ['SMT', {}, /an id as `doctor` shows it/u],
      ['smt', { until: on.ahead(-1000) }, /within the next 90 days/u],
      ['smt', { until: on.ahead(91 * DAY) }, /within the next 90 days/u],
      ['smt', { until: '2027-01-31' }, /RFC 3339/u],
      ['smt', { until: 'never' }, /RFC 3339/u],
      ['smt', { reason: '' }, /1 to 500 characters/u],
      ['smt', { reason: ' ' }, /1 to 500 characters/u],
      ['smt', { reason: 'a\nb' }, /without control characters/u],
    ] as const) {
      const reply = await add(on, finding, more)
      assert.deepEqual([reply.status, codeOf(reply)], [400, 'BAD_REQUEST'], reply.text)
      assert.match(String(member(reply.json, 'detail')), says)
    }
    assert.deepEqual(await exceptions(on), [])
    assert.deepEqual(await ofType(on.agent, 'host.exception_added'), [])
    const { json } = await refuses(on)
    assert.deepEqual(member(json, 'facts', 'findings'), ['kvm-nested', 'smt'])
  })

  test('are the operators’ business alone', async (t) => {
    const on = await unsafe(t, SMT)
    const body = { finding: 'smt', reason: 'I want to run', until: on.ahead(WHILE) }
    for (const call of [
      { method: 'POST', path: '/v1/host/exceptions', body },
      { method: 'DELETE', path: '/v1/host/exceptions/smt' },
      { path: '/v1/host/exceptions' },
    ] as const) {
      const reply = await on.agent.tenant(on.token, call)
      assert.deepEqual([reply.status, codeOf(reply)], [403, 'FORBIDDEN'])
    }
    await refuses(on)
  })

  test('turn a failed check of doctor into a warning that names them', async (t) => {
    const on = await unsafe(t, SMT)
    const look = async (): Promise<unknown> =>
      (await on.agent.operator({ path: '/v1/doctor' })).json
    const smt = async (): Promise<unknown> =>
      (Object(member(await look(), 'checks')) as unknown[]).find(
        (one) => member(one, 'id') === 'smt',
      )
    const before = await smt()
    assert.deepEqual([member(before, 'status'), member(before, 'severity')], ['failed', 'severe'])
    assert.match(String(member(before, 'fix')), /^echo off > /u)
    assert.equal(member(before, 'exception'), null)
    await add(on, 'smt')
    const after = await smt()
    assert.deepEqual([member(after, 'status'), member(after, 'severity')], ['warning', 'severe'])
    assert.equal(member(after, 'exception', 'reason'), 'The machine goes in May')
    const intent = await admits(on)
    assert.equal(member(await look(), 'findings'), member(intent, 'host', 'findings'))
    on.pass(WHILE)
    assert.deepEqual(await smt(), before)
  })
})
