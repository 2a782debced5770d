/** What people call pods: names, labels, beginnings of ids, and lists by them. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { member, type Reply } from './harness.ts'
import { exitCode, type PodHost, podHost, run } from './pod-host.ts'

const POD_LIST = '/v1/tenants/acme/pods'

const codeOf = (reply: Reply): unknown => [reply.status, member(reply.json, 'code')]

async function idsOf(host: PodHost, query: string): Promise<unknown[]> {
  const reply = await host.agent.tenant(host.token, { path: `${POD_LIST}${query}` })
  assert.equal(reply.status, 200, reply.text)
  return (member(reply.json, 'pods') as unknown[]).map((pod) => member(pod, 'id'))
}

async function end(host: PodHost, pod: string): Promise<void> {
  host.end(String(member(await host.inspect(pod), 'launch')), exitCode(0))
  await host.until('its end', async () =>
    member(await host.inspect(pod), 'state') === 'exited' ? true : null,
  )
}

suite('agent/names', () => {
  test('a name is one pod’s until it ends, and every route takes it', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { name: 'web' })
    const taken = await host.launch('acme', 'again', { name: 'web' })
    assert.deepEqual(codeOf(taken), [409, 'POD_NAME_TAKEN'], taken.text)
    assert.equal(member(taken.json, 'facts', 'pod'), pod)
    // Another tenant's names are its own.
    await host.admit('bolt')
    assert.equal((await host.launch('bolt', undefined, { name: 'web' })).status, 201)
    assert.equal(member(await host.inspect('web'), 'id'), pod)
    assert.equal((await host.post('web/kill', { signal: 'HUP' })).status, 202)
    assert.equal((await host.post('web/stop')).status, 202)
    await host.until('its end', async () =>
      member(await host.inspect('web'), 'state') === 'exited' ? true : null,
    )
    // The same request, with the key that was not used up.
    const next = await host.launch('acme', 'again', { name: 'web' })
    assert.equal(next.status, 201, next.text)
    assert.equal(member(await host.inspect('web'), 'id'), member(next.json, 'id'))
    const removed = await host.agent.tenant(host.token, {
      method: 'DELETE',
      path: `${POD_LIST}/web`,
    })
    assert.deepEqual(codeOf(removed), [409, 'POD_STATE_CONFLICT'])
  })

  test('a pod that waits to be started again keeps its name, and its starts share it', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { name: 'worker', restart: 'always', labels: { role: 'db' } })
    host.end((await host.launches(1)).pod, exitCode(1))
    await host.until('waiting', async () =>
      member(await host.inspect('worker'), 'state') === 'restarting' ? true : null,
    )
    assert.deepEqual(codeOf(await host.launch('acme', undefined, { name: 'worker' })), [
      409,
      'POD_NAME_TAKEN',
    ])
    assert.equal((await host.post('worker/rename', { name: 'queue' })).status, 200)
    host.pass(60_000)
    await host.launches(2)
    const running = await host.until('running', async () => {
      const found = await host.inspect('queue')
      return member(found, 'state') === 'running' ? found : null
    })
    assert.deepEqual(
      ['id', 'attempt', 'labels'].map((name) => member(running, name)),
      [pod, 1, { role: 'db' }],
    )
    assert.equal((await host.agent.operator({ path: `${POD_LIST}/worker` })).status, 404)
  })

  test('an id may be cut short as long as it is one pod’s', async (t) => {
    const host = await podHost(t)
    const [one, two] = [await run(host), await run(host)]
    const shared = one.split('').findIndex((digit, at) => digit !== two[at])
    assert.equal(member(await host.inspect(one.slice(0, shared + 1)), 'id'), one)
    const both = await host.agent.operator({ path: `${POD_LIST}/${one.slice(0, shared)}` })
    assert.deepEqual(codeOf(both), [409, 'POD_AMBIGUOUS'])
    for (const nobody of [one.slice(0, 3), 'f'.repeat(8), '0%', '_', `${one}0`, 'no-such']) {
      const path = `${POD_LIST}/${encodeURIComponent(nobody)}`
      assert.deepEqual(codeOf(await host.agent.operator({ path })), [404, 'NOT_FOUND'], nobody)
    }
    await host.admit('bolt')
    const other = await host.agent.operator({
      path: `/v1/tenants/bolt/pods/${one.slice(0, shared + 1)}`,
    })
    assert.equal(other.status, 404)
  })

  test('lists by state, name, label, image, level, and without those that have ended', async (t) => {
    const host = await podHost(t)
    const web = await run(host, { name: 'web', labels: { app: 'shop', tier: 'front' } })
    const db = await run(host, { name: 'db', labels: { app: 'shop', note: 'a=b' } })
    const old = await run(host, { labels: { app: 'other' } })
    await end(host, old)
    for (const [query, expected] of [
      ['', [old, db, web]],
      ['?ended=false', [db, web]],
      ['?state=exited', [old]],
      ['?state=running', [db, web]],
      ['?name=db', [db]],
      ['?label=app', [old, db, web]],
      ['?label=app=shop', [db, web]],
      ['?label=app=shop&label=tier', [web]],
      ['?label=note=a=b', [db]],
      ['?label=constructor', []],
      ['?isolation=vm', [old, db, web]],
      ['?isolation=container', []],
      [`?image=${host.registry.host}`, [old, db, web]],
      ['?image=elsewhere', []],
      ['?limit=1&name=web', []],
    ] as const)
      assert.deepEqual(await idsOf(host, query), expected, query)
    const page = await host.agent.operator({ path: `${POD_LIST}?limit=1&name=web` })
    assert.equal(member(page.json, 'next'), old)
    assert.equal((await host.agent.operator({ path: `${POD_LIST}?nonsense=1` })).status, 400)
  })

  test('refuses what is no name, label or annotation', async (t) => {
    const host = await podHost(t)
    const many = Object.fromEntries(Array.from({ length: 33 }, (_, at) => [`k${at}`, '']))
    for (const body of [
      { name: '' },
      { name: '0193b5a0' },
      { name: 'a b' },
      { name: 'ü' },
      { name: 'a'.repeat(64) },
      { labels: { '': 'x' } },
      { labels: { 'a=b': 'x' } },
      { labels: { a: 'x\n' } },
      { labels: { a: 'x'.repeat(256) } },
      { labels: { a: 1 } },
      { labels: many },
      { annotations: { a: 'x'.repeat(4097) } },
    ]) {
      const reply = await host.launch('acme', undefined, body)
      assert.deepEqual(codeOf(reply), [400, 'BAD_REQUEST'], JSON.stringify(body).slice(0, 80))
    }
    const pod = await run(host, { annotations: { why: 'x'.repeat(4096) } })
    const bad = await host.post(`${pod}/rename`, { name: '../x' })
    assert.deepEqual(codeOf(bad), [400, 'BAD_REQUEST'])
  })
})
