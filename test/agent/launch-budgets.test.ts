/** Launches again and again, that fail after the decision or do not: they cannot fill the log. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { FAILURES, LaunchBudgets } from '../../agent/tasks/launch-budgets.ts'
import { parseTenantId, Refusal, type TenantId } from '../../policy/index.ts'
import { member, type Reply } from './harness.ts'
import { records, type Stage, stage } from './stage.ts'

const acme = parseTenantId('acme')
const FAILURES_MAX = FAILURES.most
/** More than any test launches. */
const MANY = 1_000_000

/** The refusal that a launch gets, or null. */
function refusalOf(budgets: LaunchBudgets, perMinute: number, tenant = acme): Refusal | null {
  try {
    budgets.admit(tenant, perMinute)
    return null
  } catch (error) {
    assert.ok(error instanceof Refusal)
    return error
  }
}

/** What the caller is told to wait; null when there is nothing to wait for. */
const secondsOf = (refusal: Refusal | null): unknown => refusal?.facts['retry_after_s'] ?? null

/** A refusal of the API that says how long to wait, in all three places. */
function assertRefused(reply: Reply, code: string): void {
  assert.equal(reply.status, 429, reply.text)
  assert.equal(member(reply.json, 'code'), code)
  const seconds = Number(member(reply.json, 'facts', 'retry_after_s'))
  assert.ok(seconds >= 1 && seconds <= 60, reply.text)
  assert.equal(reply.headers['retry-after'], String(seconds))
  assert.match(String(member(reply.json, 'detail')), new RegExp(`again in ${seconds} s`, 'u'))
}

const workersOf = ({ agent }: Stage): number =>
  agent.spawn.requests.filter((request) => request['op'] === 'worker').length

async function countsOf({ agent }: Stage): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const record of await records(agent)) {
    const type = String(member(record, 'type'))
    if (type.startsWith('launch.')) counts[type] = (counts[type] ?? 0) + 1
  }
  return counts
}

suite('agent/launch budgets: failures', () => {
  test('refuses a tenant whose launches keep failing, on one record, and nobody else', async (t) => {
    const on = await stage(t)
    await on.admit('other')
    // This host's spawn has no workers: the root image cannot be built.
    for (let left = FAILURES_MAX; left > 0; left -= 1) {
      const failed = await on.launch()
      assert.equal(member(failed.json, 'code'), 'LAUNCH_FAILED', failed.text)
    }
    assert.equal(workersOf(on), FAILURES_MAX)
    for (let left = 5; left > 0; left -= 1) assertRefused(await on.launch(), 'LAUNCHES_FAILING')
    assert.equal(workersOf(on), FAILURES_MAX)
    assert.deepEqual(await countsOf(on), {
      'launch.requested': FAILURES_MAX,
      'launch.failed': FAILURES_MAX,
      'launch.refused': 1,
    })
    assert.equal(member((await on.launch('other')).json, 'code'), 'LAUNCH_FAILED')
  })

  test('counts what is refused after its request is on record: a layer that is missing', async (t) => {
    const on = await stage(t)
    for (const layer of on.layers) on.registry.blobs.delete(layer)
    for (let left = FAILURES_MAX; left > 0; left -= 1) {
      assert.equal(member((await on.launch()).json, 'code'), 'IMAGE_UNKNOWN')
    }
    assert.equal(member((await on.launch()).json, 'code'), 'LAUNCHES_FAILING')
    // The first of each reason.
    assert.deepEqual(await countsOf(on), { 'launch.requested': FAILURES_MAX, 'launch.refused': 2 })
  })

  test('does not count refusals, which are folded anyhow', async (t) => {
    const on = await stage(t)
    const path = '/v1/tenants/acme/pods'
    for (let left = FAILURES_MAX + 5; left > 0; left -= 1) {
      const body = { image: 'no reference' }
      const headers = { 'idempotency-key': `r${left}` }
      const reply = await on.agent.tenant(on.token, { method: 'POST', path, body, headers })
      assert.equal(member(reply.json, 'code'), 'IMAGE_REFERENCE_INVALID')
    }
    assert.deepEqual(await countsOf(on), { 'launch.refused': 1 })
  })

  test('gives failures back one by one, and never more than there were', () => {
    let now = 5000
    const budgets = new LaunchBudgets(() => now)
    const refused = (): unknown => secondsOf(refusalOf(budgets, MANY))
    const fail = (times: number): void => {
      for (let left = times; left > 0; left -= 1) budgets.failed(acme)
    }
    fail(FAILURES_MAX - 1)
    assert.equal(refused(), null)
    fail(1)
    assert.equal(refused(), FAILURES.refillMs / 1000)
    now += FAILURES.refillMs - 1
    assert.equal(refused(), 1)
    now += 1
    assert.equal(refused(), null)
    fail(1)
    assert.equal(refused(), FAILURES.refillMs / 1000)
    now += FAILURES.refillMs * 1000
    fail(FAILURES_MAX - 1)
    assert.equal(refused(), null)
    // Those that were under way together may go beyond; they are owed too.
    fail(4)
    assert.equal(refused(), 4 * (FAILURES.refillMs / 1000))
  })

  test('keeps a bounded number of tenants, those that failed last', () => {
    const budgets = new LaunchBudgets(() => 0)
    const exhaust = (tenant: string): void => {
      for (let left = FAILURES_MAX; left > 0; left -= 1) budgets.failed(parseTenantId(tenant))
    }
    for (let index = 0; index < 4096; index += 1) exhaust(`t${index}`)
    exhaust('t0')
    exhaust('more')
    const code = (tenant: string): unknown =>
      refusalOf(budgets, MANY, parseTenantId(tenant))?.code ?? null
    assert.equal(code('t0'), 'LAUNCHES_FAILING')
    assert.equal(code('t2'), 'LAUNCHES_FAILING')
    assert.equal(code('t1'), null)
  })
})

/** Sets acme's quota of launches, and leaves the others as they were. */
async function limit({ agent }: Stage, launches: number): Promise<void> {
  const quotas = { vcpus: 4, memory_mib: 4096, pods: 16, launches_per_minute: launches }
  const path = '/v1/tenants/acme'
  const changed = await agent.operator({ method: 'PATCH', path, body: { quotas } })
  assert.equal(member(changed.json, 'quotas', 'launches_per_minute', 'limit'), launches)
}

suite('agent/launch budgets: launches', () => {
  test('refuses what goes beyond the quota, on one record, whoever asks, and nobody else', async (t) => {
    const on = await stage(t)
    await on.admit('other')
    await limit(on, 3)
    const replies = await Promise.all(Array.from({ length: 8 }, () => on.launch()))
    const codes = replies.map((reply) => String(member(reply.json, 'code')))
    // Together, too, no more than three come to where records of their own are written.
    assert.deepEqual(codes.toSorted(), [
      ...Array.from({ length: 3 }, () => 'LAUNCH_FAILED'),
      ...Array.from({ length: 5 }, () => 'LAUNCH_RATE_EXCEEDED'),
    ])
    const workers = workersOf(on)
    for (let left = 5; left > 0; left -= 1) {
      assertRefused(await on.launch(), 'LAUNCH_RATE_EXCEEDED')
    }
    assert.equal(workersOf(on), workers)
    assert.deepEqual(await countsOf(on), {
      'launch.requested': 3,
      'launch.failed': 3,
      'launch.refused': 1,
    })
    // The quota is the tenant's, and not its token's: an operator who launches for it uses it too.
    const operator = await on.agent.operator({
      method: 'POST',
      path: '/v1/tenants/acme/pods',
      body: { image: 'registry.example/x:1' },
      headers: { 'idempotency-key': 'o' },
    })
    assertRefused(operator, 'LAUNCH_RATE_EXCEEDED')
    assert.equal(member((await on.launch('other')).json, 'code'), 'LAUNCH_FAILED')
  })

  test('is in force with the next launch when it is changed, and does not use up the key', async (t) => {
    const on = await stage(t)
    await limit(on, 1)
    assert.equal(member((await on.launch()).json, 'code'), 'LAUNCH_FAILED')
    assertRefused(await on.launch('acme', 'again'), 'LAUNCH_RATE_EXCEEDED')
    await limit(on, MANY)
    assert.equal(member((await on.launch('acme', 'again')).json, 'code'), 'LAUNCH_FAILED')
  })

  test('is given back over a minute, one by one, and is never more than the quota', () => {
    let now = 77
    const budgets = new LaunchBudgets(() => now)
    // A number of which the parts of a minute are no whole milliseconds.
    const quota = 7
    const launch = (times: number): readonly unknown[] =>
      Array.from({ length: times }, () => secondsOf(refusalOf(budgets, quota)))
    const free = Array.from({ length: quota }, () => null)
    assert.deepEqual(launch(quota), free)
    assert.deepEqual(launch(3), [9, 9, 9])
    now += 60_000 / quota
    assert.deepEqual(launch(2), [null, 9])
    now += 3 * (60_000 / quota)
    assert.deepEqual(launch(4), [null, null, null, 9])
    now += 86_400_000
    assert.deepEqual(launch(quota + 1), [...free, 9])
  })

  test('counts each tenant by itself, and launches that are refused for failing not at all', () => {
    let now = 0
    const budgets = new LaunchBudgets(() => now)
    const code = (tenant: TenantId): unknown => refusalOf(budgets, 1, tenant)?.code ?? null
    for (let left = FAILURES_MAX; left > 0; left -= 1) budgets.failed(acme)
    for (let left = 3; left > 0; left -= 1) assert.equal(code(acme), 'LAUNCHES_FAILING')
    const other = parseTenantId('other')
    assert.equal(code(other), null)
    assert.equal(code(other), 'LAUNCH_RATE_EXCEEDED')
    now += FAILURES.refillMs
    assert.equal(code(acme), null)
  })
})
