/** What the API refuses before it does anything: shapes, sizes, rates, callers. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import path from 'node:path'
import { suite, test } from 'node:test'
import { SignJWT } from 'jose'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import { member, type Reply, startAgent } from './harness.ts'

const PROBLEM = /^application\/problem\+json/u

function refusedWith(reply: Reply, status: number, code: string): void {
  assert.equal(reply.status, status, reply.text)
  assert.match(reply.type, PROBLEM)
  assert.equal(member(reply.json, 'code'), code)
  assert.equal(member(reply.json, 'status'), status)
  const names = Object.keys(Object(reply.json))
  assert.deepEqual(names, ['type', 'title', 'status', 'detail', 'code', 'facts', 'policies'])
}

const launchOf = (body: unknown) =>
  ({
    method: 'POST',
    path: '/v1/tenants/acme/pods',
    body,
    headers: { 'idempotency-key': 'a' },
  }) as const

suite('agent/api shapes', () => {
  test('refuses what is not exactly a launch, and starts nothing', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const bad: readonly unknown[] = [
      {},
      { image: 'x', privileged: true },
      { image: 'x', vcpus: '1' },
      { image: 'x', memory_mib: 127 },
      { image: 'x', memory_mib: 16_386 },
      { image: 'x', vcpus: 9 },
      { image: 'x', isolation: 'none' },
      { image: 'x', env: ['no equals sign'] },
      { image: 'x', env: ['A=1', 'A=2'] },
      { image: 'x', user: '2147483648' },
      { image: 'x', user: '0:2147483648' },
      { image: 'x', cwd: 'relative' },
      { image: 'x', capabilities_add: ['CAP_EVERYTHING'] },
      { image: 'x', hostname: '-' },
      { image: 'x', read_only_root: 'true' },
      [],
      null,
    ]
    for (const body of bad) {
      const reply = await agent.tenant(token, launchOf(body))
      refusedWith(reply, 400, 'BAD_REQUEST')
    }
    const listed = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
    assert.deepEqual(member(listed.json, 'pods'), [])
  })

  test('names the member that is wrong, and what is permitted there', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const said = async (body: unknown): Promise<unknown> =>
      member((await agent.tenant(token, launchOf(body))).json, 'detail')
    assert.equal(
      await said({ image: 'x', isolation: 'none' }),
      'The body/isolation must be "vm" or "container" or "host".',
    )
    assert.equal(
      await said({ image: 'x', privileged: true }),
      'The body must not have a member "privileged".',
    )
    assert.equal(await said({ image: 'x', args: ['a', 1] }), 'The body/args/1 must be string.')
    assert.equal(await said({}), "The body must have required property 'image'.")
    const long = String(await said({ image: 'x', ['y'.repeat(10_000)]: 1 }))
    assert.ok(long.length < 200, long)
    const follow = { path: '/v1/tenants/acme/pods/x/logs?follow=yes' }
    assert.equal(
      member((await agent.tenant(token, follow)).json, 'detail'),
      'The querystring/follow must be "true" or "false".',
    )
  })

  test('refuses bodies that two programs could read differently', async (t) => {
    const agent = await startAgent(t)
    const texts = [
      '{"id":"a","id":"b"}',
      '{"id":"a",}',
      '{"id":"\\ud800"}',
      '{"id":"a","quotas":{"vcpus":9007199254740993,"memory_mib":1,"pods":1}}',
      '\u00ef\u00bb\u00bf{"id":"a"}',
      'nonsense',
    ]
    for (const raw of texts) {
      refusedWith(
        await agent.operator({ method: 'POST', path: '/v1/tenants', raw }),
        400,
        'BAD_REQUEST',
      )
    }
  })

  test('says what is wrong with a tenant name that cannot be one, and makes no tenant', async (t) => {
    const agent = await startAgent(t)
    for (const id of ['Bad_Name', '', '-a', 'a-', '1a', '../acme']) {
      const reply = await agent.operator({ method: 'POST', path: '/v1/tenants', body: { id } })
      refusedWith(reply, 400, 'BAD_REQUEST')
      assert.match(String(member(reply.json, 'detail')), /^Tenant id must be 1 to /u)
    }
    const listed = await agent.operator({ path: '/v1/tenants' })
    assert.deepEqual(member(listed.json, 'tenants'), [])
    // In a path the same name is no tenant's.
    refusedWith(await agent.operator({ path: '/v1/tenants/Bad_Name' }), 404, 'NOT_FOUND')
  })

  test('refuses bodies that are too large, and other media types', async (t) => {
    const agent = await startAgent(t)
    const large = JSON.stringify({ id: 'a', display: 'x'.repeat(300_000) })
    const call = { method: 'POST', path: '/v1/tenants' } as const
    refusedWith(await agent.operator({ ...call, raw: large }), 413, 'BODY_TOO_LARGE')
    const headers = { 'content-type': 'application/xml' }
    refusedWith(
      await agent.operator({ ...call, raw: '<a/>', headers }),
      415,
      'UNSUPPORTED_MEDIA_TYPE',
    )
  })

  test('answers bytes that are no request with a problem as well', async (t) => {
    const agent = await startAgent(t)
    for (const bytes of ['hello\r\n\r\n', `GET / HTTP/1.1\r\nx: ${'y'.repeat(20_000)}\r\n\r\n`]) {
      const socket = connect(path.join(agent.directory, 'run', AGENT_SOCKET))
      let answer = ''
      socket.on('data', (chunk: Buffer) => (answer += chunk.toString()))
      socket.write(bytes)
      await once(socket, 'close')
      assert.match(answer, /^HTTP\/1\.1 400 Bad Request\r\n/u)
      assert.match(answer, /content-type: application\/problem\+json/u)
      assert.match(answer, /"code":"BAD_REQUEST"/u)
    }
  })
})

suite('agent/api callers', () => {
  test('lets nobody in over HTTPS without a good token, and says one sentence to all', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const [header = '', payload = '', signature = ''] = token.split('.')
    const claims: Record<string, unknown> = JSON.parse(Buffer.from(payload, 'base64url').toString())
    const none = Buffer.from(JSON.stringify({ alg: 'none', typ: 'at+jwt' })).toString('base64url')
    const other = await new SignJWT(claims)
      .setProtectedHeader({ alg: 'HS256', typ: 'at+jwt' })
      .sign(Buffer.from('x'.repeat(32)))
    const wrong = [
      `${none}.${payload}.`,
      `${header}.${Buffer.from(JSON.stringify({ ...claims, tenant: 'other' })).toString('base64url')}.${signature}`,
      other,
      `${token}x`,
      'x',
    ]
    const bodies = new Set<string>()
    for (const bad of wrong) {
      const reply = await agent.tenant(bad, { path: '/v1/tenants/acme/pods' })
      refusedWith(reply, 401, 'UNAUTHENTICATED')
      assert.equal(reply.headers['www-authenticate'], 'Bearer')
      bodies.add(reply.text)
    }
    assert.equal(bodies.size, 1)
    refusedWith(await agent.tenant(null, { path: '/v1/tenants/acme' }), 401, 'UNAUTHENTICATED')
    assert.equal((await agent.tenant(token, { path: '/v1/tenants/acme' })).status, 200)
  })

  test('forgets a revoked token at once, and puts that on record', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const payload = Buffer.from(token.split('.')[1] ?? '', 'base64url').toString()
    const claims: Record<string, unknown> = JSON.parse(payload)
    const jti = String(claims['jti'])
    const revoke = (tenant: string, id: string): Promise<Reply> =>
      agent.operator({ method: 'DELETE', path: `/v1/tenants/${tenant}/tokens/${id}` })
    await agent.onboard('other')
    refusedWith(await revoke('acme', `${jti}x`), 404, 'NOT_FOUND')
    refusedWith(await revoke('other', jti), 404, 'NOT_FOUND')
    assert.equal((await agent.tenant(token, { path: '/v1/tenants/acme' })).status, 200)
    assert.equal((await revoke('acme', jti)).status, 204)
    refusedWith(await agent.tenant(token, { path: '/v1/tenants/acme' }), 401, 'UNAUTHENTICATED')
    // Once more is no mistake, and no second record.
    assert.equal((await revoke('acme', jti)).status, 204)
    const log = await agent.operator({ path: '/v1/audit/records?limit=1000' })
    const entries = member(log.json, 'records')
    assert.ok(Array.isArray(entries))
    const revoked = entries
      .map((entry: unknown) => member(entry, 'record'))
      .filter((record) => member(record, 'type') === 'token.revoked')
    assert.equal(revoked.length, 1)
    assert.equal(member(revoked[0], 'tenant'), 'acme')
    assert.deepEqual(member(revoked[0], 'token'), { jti })
    assert.equal(member(revoked[0], 'actor', 'kind'), 'operator')
  })

  test('keeps what operators do to operators', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    const calls = [
      { method: 'POST', path: '/v1/tenants', body: { id: 'mine' } },
      { path: '/v1/tenants' },
      { method: 'PATCH', path: '/v1/tenants/acme', body: { trust: 'trusted' } },
      { method: 'POST', path: '/v1/tenants/acme/tokens', body: { name: 'more' } },
      { path: '/v1/audit/records' },
      { path: '/v1/audit/records/0' },
      { path: '/v1/audit/records/0/receipt' },
      { path: '/v1/doctor' },
    ] as const
    for (const call of calls) refusedWith(await agent.tenant(token, call), 403, 'FORBIDDEN')
  })

  test('shows another tenant’s things as nothing: the same bytes as for what never was', async (t) => {
    const agent = await startAgent(t)
    const token = await agent.onboard('acme')
    await agent.onboard('other')
    const nobodys = '01890000-0000-7000-8000-000000000000'
    const pods = (
      tenant: string,
    ): readonly { method?: 'POST' | 'DELETE'; path: string; body?: object }[] => [
      { path: `/v1/tenants/${tenant}` },
      { path: `/v1/tenants/${tenant}/pods` },
      { path: `/v1/tenants/${tenant}/pods/${nobodys}` },
      { path: `/v1/tenants/${tenant}/pods/${nobodys}/logs` },
      { path: `/v1/tenants/${tenant}/pods/${nobodys}/wait?timeout_s=1` },
      { path: `/v1/tenants/${tenant}/pods/${nobodys}/record` },
      { path: `/v1/tenants/${tenant}/pods/${nobodys}/receipt` },
      { method: 'POST', path: `/v1/tenants/${tenant}/pods/${nobodys}/stop`, body: {} },
      { method: 'POST', path: `/v1/tenants/${tenant}/pods/${nobodys}/pause`, body: {} },
      { method: 'POST', path: `/v1/tenants/${tenant}/pods/${nobodys}/resume`, body: {} },
      {
        method: 'POST',
        path: `/v1/tenants/${tenant}/pods/${nobodys}/resize`,
        body: { scratch_bytes: 1 << 30 },
      },
      { path: `/v1/tenants/${tenant}/pods/${nobodys}/stats` },
      { method: 'DELETE', path: `/v1/tenants/${tenant}/pods/${nobodys}` },
    ]
    const bodies = new Set<string>()
    const calls = [
      ...pods('other'),
      ...pods('nobody'),
      ...pods('..%2facme'),
      { path: '/v1/nothing' },
    ]
    for (const call of calls) {
      const reply = await agent.tenant(token, call)
      refusedWith(reply, 404, 'NOT_FOUND')
      bodies.add(reply.text)
    }
    const headers = { 'idempotency-key': 'k' }
    const body = { image: 'registry.example/x:1' }
    const launch = { method: 'POST', path: '/v1/tenants/other/pods', body, headers } as const
    bodies.add((await agent.tenant(token, launch)).text)
    assert.equal(bodies.size, 1, [...bodies].join('\n'))
  })
})
