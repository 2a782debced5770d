/** Deleting a tenant: only one that is suspended and has no pods, all of it but its records. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite, test } from 'node:test'
import { Agent as Dispatcher, request } from 'undici'
import { casemate } from './command-line.ts'
import { member, type Reply } from './harness.ts'
import { exitCode, type PodHost, podHost, run } from './pod-host.ts'
import { records } from './stage.ts'

const remove = (host: PodHost): Promise<Reply> =>
  host.agent.operator({ method: 'DELETE', path: '/v1/tenants/acme' })

const suspend = async (host: PodHost): Promise<void> => {
  const body = { state: 'suspended' }
  const reply = await host.agent.operator({ method: 'PATCH', path: '/v1/tenants/acme', body })
  assert.equal(reply.status, 200, reply.text)
}

const ends = (host: PodHost, pod: string): Promise<unknown> =>
  host.until('its end', async () =>
    member(await host.inspect(pod), 'state') === 'exited' ? true : null,
  )

suite('agent/delete-tenant', () => {
  test('is refused while it is active, and while a pod runs or may be started again', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'always' })
    const active = await remove(host)
    assert.deepEqual([active.status, member(active.json, 'code')], [409, 'TENANT_IN_USE'])
    await suspend(host)
    const runs = await remove(host)
    assert.deepEqual([runs.status, member(runs.json, 'facts', 'pods')], [409, 1], runs.text)
    host.end(pod, exitCode(1))
    await host.until('waiting', async () =>
      member(await host.inspect(pod), 'state') === 'restarting' ? true : null,
    )
    assert.equal(member((await remove(host)).json, 'code'), 'TENANT_IN_USE')
    const own = { method: 'DELETE', path: '/v1/tenants/acme' } as const
    assert.equal((await host.agent.tenant(host.token, own)).status, 403)
    const more = await host.agent.operator({ method: 'DELETE', path: '/v1/tenants/nobody' })
    assert.equal(more.status, 404)
    assert.equal((await host.agent.operator({ path: '/v1/tenants/acme' })).status, 200)
  })

  test('leaves its records, and nothing else; who has the id next sees nothing of it', async (t) => {
    const host = await podHost(t)
    await host.admit('bolt')
    await host.launch('bolt')
    const pod = await run(host, { name: 'web' })
    const { stateDir } = host.agent
    const images = path.join(stateDir, 'images', 'blobs', 'acme')
    assert.ok(existsSync(images))
    host.end(pod, exitCode(0))
    await ends(host, pod)
    const { token } = host
    await suspend(host)
    const line = casemate(t, host, 'tenant', 'delete', 'acme')
    assert.equal(await line.ended, 0)
    assert.ok(!existsSync(images) && !existsSync(path.join(stateDir, 'pods', pod)))
    assert.ok(existsSync(path.join(stateDir, 'images', 'blobs', 'bolt')))
    assert.equal((await host.agent.operator({ path: '/v1/tenants/acme' })).status, 404)
    assert.equal((await host.agent.tenant(token, { path: '/v1/tenants/acme/pods' })).status, 401)
    const log = await records(host.agent)
    const last = log.findLast((record) => member(record, 'type') === 'tenant.deleted')
    assert.deepEqual([member(last, 'tenant'), member(last, 'actor', 'kind')], ['acme', 'operator'])
    assert.ok(log.some((record) => member(record, 'launch_id') === pod))
    const database = new DatabaseSync(path.join(stateDir, 'casemate.db'), { readOnly: true })
    for (const table of ['pods', 'tokens', 'idempotency', 'published_ports', 'restart_requests']) {
      const row = database.prepare(`SELECT count(*) AS n FROM ${table} WHERE tenant = 'acme'`).get()
      assert.equal(row?.['n'], 0, table)
    }
    database.close()
    const again = await host.agent.onboard('acme')
    const events = await host.agent.tenant(again, { path: '/v1/tenants/acme/events' })
    assert.deepEqual(
      events.text
        .trim()
        .split('\n')
        .map((text) => member(JSON.parse(text), 'type')),
      ['tenant.created', 'token.issued'],
    )
    assert.doesNotMatch(events.text, new RegExp(pod, 'u'))
    const old = await host.agent.tenant(again, { path: `/v1/tenants/acme/pods/${pod}` })
    assert.equal(old.status, 404)
    assert.equal((await host.agent.tenant(token, { path: '/v1/tenants/acme/pods' })).status, 401)
    const all = await host.agent.operator({ path: `/v1/events?pod=${pod}` })
    assert.match(all.text, /"type":"launch.exited","tenant":"acme"/u)
  })

  test('is not done, and not on record, while something else is kept for it', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, {})
    host.end(pod, exitCode(0))
    await ends(host, pod)
    await suspend(host)
    await host.agent.end()
    const database = new DatabaseSync(path.join(host.agent.stateDir, 'casemate.db'))
    database.exec(`CREATE TABLE keeps (tenant TEXT REFERENCES tenants (id));
      INSERT INTO keeps VALUES ('acme')`)
    database.close()
    await host.agent.again()
    const kept = await remove(host)
    assert.deepEqual([kept.status, member(kept.json, 'code')], [409, 'TENANT_IN_USE'], kept.text)
    const log = await records(host.agent)
    assert.ok(!log.some((record) => member(record, 'type') === 'tenant.deleted'))
    assert.equal((await host.agent.operator({ path: '/v1/tenants/acme' })).status, 200)
    assert.ok(existsSync(path.join(host.agent.stateDir, 'pods', pod)), 'its log is there')
  })

  test('ends what was begun with its tokens', async (t) => {
    const host = await podHost(t)
    const { token } = host
    const dispatcher = new Dispatcher({ connect: { rejectUnauthorized: false } })
    t.after(() => dispatcher.destroy())
    const url = `https://127.0.0.1:${host.agent.httpsPort}/v1/tenants/acme/events?follow=true`
    const headers = { authorization: `Bearer ${token}` }
    const stream = await request(url, { dispatcher, headers })
    assert.equal(stream.statusCode, 200)
    const over = assert.rejects(stream.body.text())
    await suspend(host)
    assert.equal((await remove(host)).status, 204)
    await over
  })
})
