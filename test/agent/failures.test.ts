/** Launches that fail after the decision, again and again: they cannot fill the log. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { FAILURE_MS, FAILURES_MAX, Failures } from '../../agent/tasks/failures.ts'
import { parseTenantId, Refusal } from '../../policy/index.ts'
import { member } from './harness.ts'
import { records, type Stage, stage } from './stage.ts'

const acme = parseTenantId('acme')

async function countsOf({ agent }: Stage): Promise<Record<string, number>> {
  const counts: Record<string, number> = {}
  for (const record of await records(agent)) {
    const type = String(member(record, 'type'))
    if (type.startsWith('launch.')) counts[type] = (counts[type] ?? 0) + 1
  }
  return counts
}

suite('agent/failures', () => {
  test('refuses a tenant whose launches keep failing, on one record, and nobody else', async (t) => {
    const on = await stage(t)
    await on.admit('other')
    // This host's spawn has no workers: the root image cannot be built.
    for (let left = FAILURES_MAX; left > 0; left -= 1) {
      const failed = await on.launch()
      assert.equal(member(failed.json, 'code'), 'LAUNCH_FAILED', failed.text)
    }
    const workers = (): number =>
      on.agent.spawn.requests.filter((request) => request['op'] === 'worker').length
    assert.equal(workers(), FAILURES_MAX)
    for (let left = 5; left > 0; left -= 1) {
      const reply = await on.launch()
      assert.equal(reply.status, 429, reply.text)
      assert.equal(member(reply.json, 'code'), 'LAUNCHES_FAILING')
      const seconds = Number(member(reply.json, 'facts', 'retry_after_s'))
      assert.ok(seconds >= 1 && seconds <= 60, reply.text)
      assert.equal(reply.headers['retry-after'], String(seconds))
      assert.match(String(member(reply.json, 'detail')), new RegExp(`again in ${seconds} s`, 'u'))
    }
    assert.equal(workers(), FAILURES_MAX)
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
    const failures = new Failures(() => now)
    const refused = (): number | null => {
      try {
        failures.admit(acme)
        return null
      } catch (error) {
        assert.ok(error instanceof Refusal)
        return Number(error.facts['retry_after_s'])
      }
    }
    const fail = (times: number): void => {
      for (let left = times; left > 0; left -= 1) failures.count(acme)
    }
    fail(FAILURES_MAX - 1)
    assert.equal(refused(), null)
    fail(1)
    assert.equal(refused(), FAILURE_MS / 1000)
    now += FAILURE_MS - 1
    assert.equal(refused(), 1)
    now += 1
    assert.equal(refused(), null)
    fail(1)
    assert.equal(refused(), FAILURE_MS / 1000)
    now += FAILURE_MS * 1000
    fail(FAILURES_MAX - 1)
    assert.equal(refused(), null)
    // Those that were under way together may go beyond; they are owed too.
    fail(4)
    assert.equal(refused(), 4 * (FAILURE_MS / 1000))
  })

  test('keeps a bounded number of tenants, those that failed last', () => {
    const failures = new Failures(() => 0)
    const exhaust = (tenant: string): void => {
      for (let left = FAILURES_MAX; left > 0; left -= 1) failures.count(parseTenantId(tenant))
    }
    for (let index = 0; index < 4096; index += 1) exhaust(`t${index}`)
    exhaust('t0')
    exhaust('more')
    assert.throws(() => failures.admit(parseTenantId('t0')), Refusal)
    assert.throws(() => failures.admit(parseTenantId('t2')), Refusal)
    failures.admit(parseTenantId('t1'))
  })
})
