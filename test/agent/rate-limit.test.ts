/** Whose requests are counted together: nobody can use up another's, known or unknown. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { KnownTokens, STRANGERS_FACTOR } from '../../agent/rate-limit.ts'
import { member, type Reply, startAgent, type TestAgent } from './harness.ts'

const MINE = { path: '/v1/tenants/acme' }
/** Requests a minute of one caller in these tests; onboarding takes two of the operator's. */
const LIMIT = 12

function isLimited(reply: Reply): void {
  assert.equal(reply.status, 429, reply.text)
  assert.match(reply.type, /^application\/problem\+json/u)
  assert.equal(member(reply.json, 'code'), 'TOO_MANY_REQUESTS')
  assert.match(String(reply.headers['retry-after']), /^[1-9]\d?$/u)
}

/** Statuses of so many requests, one after the other, each with how often it came. */
async function ask(times: number, one: () => Promise<Reply>): Promise<Record<number, number>> {
  const seen: Record<number, number> = {}
  for (let left = times; left > 0; left -= 1) {
    const { status } = await one()
    seen[status] = (seen[status] ?? 0) + 1
  }
  return seen
}

async function recordsOf(agent: TestAgent): Promise<number> {
  const { json } = await agent.operator({ path: '/v1/audit/records?limit=1000' })
  return Number(member(json, 'records', 'length'))
}

const jtiOf = (token: string): string => {
  const payload = Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()
  return String(member(JSON.parse(payload), 'jti'))
}

suite('agent/rate limit', () => {
  test('one tenant’s flood leaves another at the same address, and the operator, served', async (t) => {
    const agent = await startAgent(t, { requestsPerMinute: LIMIT })
    const acme = await agent.onboard('acme')
    const other = await agent.onboard('other')
    const before = await recordsOf(agent)
    // The first request of a token is a stranger's; from then on it has a name.
    assert.deepEqual(await ask(LIMIT + 4, () => agent.tenant(acme, MINE)), {
      200: LIMIT + 1,
      429: 3,
    })
    isLimited(await agent.tenant(acme, MINE))
    const elsewhere = { path: '/v1/tenants/other' }
    assert.deepEqual(await ask(LIMIT, () => agent.tenant(other, elsewhere)), { 200: LIMIT })
    // A second token of the same subject is no second helping.
    const body = { name: 'tests' }
    const issue = { method: 'POST', path: '/v1/tenants/acme/tokens', body } as const
    const second = String(member((await agent.operator(issue)).json, 'token'))
    assert.deepEqual(await ask(3, () => agent.tenant(second, MINE)), { 200: 1, 429: 2 })
    assert.equal(await recordsOf(agent), before + 1)
  })

  test('strangers are limited by address, on every path, and nobody they share it with', async (t) => {
    const agent = await startAgent(t, { requestsPerMinute: LIMIT })
    const acme = await agent.onboard('acme')
    const before = await recordsOf(agent)
    assert.equal((await agent.tenant(acme, MINE)).status, 200)
    const rest = LIMIT * STRANGERS_FACTOR - 4
    assert.equal((await agent.tenant(null, MINE)).status, 401)
    assert.equal((await agent.tenant(null, { path: '/v1/version' })).status, 200)
    assert.equal((await agent.tenant('garbage', { path: '/v1/nothing' })).status, 401)
    assert.deepEqual(await ask(rest, () => agent.tenant('garbage', MINE)), { 401: rest })
    isLimited(await agent.tenant('garbage', MINE))
    isLimited(await agent.tenant(null, { path: '/v1/nothing' }))
    isLimited(await agent.tenant(null, { path: '/v1/version' }))
    assert.deepEqual(await ask(LIMIT, () => agent.tenant(acme, MINE)), { 200: LIMIT })
    assert.equal(await recordsOf(agent), before)
  })

  test('a local user without a token is counted by what the kernel says', async (t) => {
    const agent = await startAgent(t, { requestsPerMinute: LIMIT })
    const acme = await agent.onboard('acme')
    const seen = await ask(LIMIT, () => agent.operator({ path: '/v1/tenants/acme' }))
    assert.deepEqual(seen, { 200: LIMIT - 2, 429: 2 })
    // Tokens through the same socket are another matter.
    const authorization = `Bearer ${acme}`
    const call = { ...MINE, headers: { authorization } }
    assert.deepEqual(await ask(2, () => agent.operator(call)), { 200: 2 })
  })

  test('whoever holds a revoked token is a stranger, and cannot use up its subject', async (t) => {
    const agent = await startAgent(t, { requestsPerMinute: LIMIT })
    const stolen = await agent.onboard('acme')
    assert.equal((await agent.tenant(stolen, MINE)).status, 200)
    const body = { name: 'tests' }
    const issue = { method: 'POST', path: '/v1/tenants/acme/tokens', body } as const
    const fresh = String(member((await agent.operator(issue)).json, 'token'))
    await agent.operator({
      method: 'DELETE',
      path: `/v1/tenants/acme/tokens/${jtiOf(stolen)}`,
    })
    // Where nobody looks at it, it is not counted as if somebody had.
    const open = { path: '/v1/health' }
    assert.deepEqual(await ask(LIMIT * 2, () => agent.tenant(stolen, open)), { 200: LIMIT * 2 })
    assert.deepEqual(await ask(LIMIT * 2, () => agent.tenant(stolen, MINE)), { 401: LIMIT * 2 })
    // One of the subject's was spent on finding out.
    assert.deepEqual(await ask(LIMIT, () => agent.tenant(fresh, MINE)), { 200: LIMIT })
  })

  test('remembers a bounded number of tokens, and lets go of the one used longest ago', () => {
    const tokens = new KnownTokens()
    for (let index = 0; index < 4096; index += 1) tokens.remember(`Bearer ${index}`, `t/${index}`)
    tokens.remember('Bearer 0', 't/0')
    tokens.remember('Bearer more', 't/more')
    assert.equal(tokens.subjectOf('Bearer 0'), 't/0')
    assert.equal(tokens.subjectOf('Bearer 1'), null)
    assert.equal(tokens.subjectOf('Bearer 2'), 't/2')
    tokens.forget('Bearer 2')
    assert.equal(tokens.subjectOf('Bearer 2'), null)
    assert.equal(tokens.subjectOf('Bearer more'), 't/more')
  })
})
