/** What goes by itself: pods that ended long ago, images that nobody used for long; and what never does. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, utimesSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { member } from './harness.ts'
import { exitCode, ofType, type PodHost, podHost, run } from './pod-host.ts'

const DAY_S = 86_400
const DAYS_MS = 86_400_000

const collect = async (host: PodHost, body: object): Promise<unknown> => {
  const reply = await host.agent.operator({ method: 'POST', path: '/v1/gc', body })
  assert.equal(reply.status, 200, reply.text)
  return reply.json
}

async function end(host: PodHost, pod: string): Promise<void> {
  host.end(pod, exitCode(1))
  await host.until('its end', async () =>
    typeof member(await host.inspect(pod), 'ended') === 'string' ? true : null,
  )
}

const launches = (report: unknown): unknown[] =>
  (member(report, 'pods') as unknown[]).map((pod) => member(pod, 'launch'))

/** All files of a tenant's images. */
function cached(host: PodHost, tenant: string): readonly string[] {
  const folders = ['blobs', 'rootfs'].map((name) =>
    path.join(host.agent.stateDir, 'images', name, tenant),
  )
  return folders.flatMap((folder) =>
    existsSync(folder) ? readdirSync(folder).map((name) => path.join(folder, name)) : [],
  )
}

function age(files: readonly string[], days: number): void {
  const then = new Date(Date.now() - days * DAYS_MS)
  for (const file of files) utimesSync(file, then, then)
}

suite('agent/gc', () => {
  test('removes pods by the time since their end, on record, and none that may still run', async (t) => {
    const host = await podHost(t)
    const [old, fresh, runs] = [await run(host), await run(host), await run(host)]
    const again = await run(host, { restart: 'always' })
    await end(host, old)
    await end(host, again)
    host.pass(10 * DAYS_MS)
    // Its first start ended long ago, the pod runs.
    await host.launches(5)
    await end(host, fresh)
    const wish = { pods_older_than_s: 5 * DAY_S, images_older_than_s: 100 * DAY_S }
    const dry = await collect(host, { ...wish, dry_run: true })
    assert.deepEqual(launches(dry), [old])
    assert.equal((await host.agent.operator({ path: `/v1/tenants/acme/pods/${old}` })).status, 200)
    assert.deepEqual(launches(await collect(host, wish)), [old])
    assert.equal((await host.agent.operator({ path: `/v1/tenants/acme/pods/${old}` })).status, 404)
    assert.ok(!existsSync(path.join(host.agent.stateDir, 'pods', old)))
    for (const pod of [again, fresh, runs]) {
      assert.equal(member(await host.inspect(pod), 'id'), pod)
    }
    const removed = await ofType(host, 'launch.removed')
    assert.deepEqual(
      removed.map((record) => [member(record, 'launch_id'), member(record, 'reason')]),
      [[old, 'age']],
    )
    assert.equal(member(removed[0], 'actor', 'kind'), 'operator')
    assert.deepEqual(launches(await collect(host, wish)), [])
  })

  test('removes images that were not used for long, and none that a pod has open', async (t) => {
    const host = await podHost(t)
    await host.admit('bolt')
    const pod = await run(host, {})
    const other = await host.launch('bolt')
    assert.equal(other.status, 201)
    const pulled = await ofType(host, 'image.pulled')
    assert.deepEqual(
      pulled.map((record) => [member(record, 'tenant'), member(record, 'layers')]),
      [
        ['acme', host.layers.length],
        ['bolt', host.layers.length],
      ],
    )
    age(cached(host, 'acme'), 40)
    const root = cached(host, 'acme').filter((file) => file.includes('rootfs'))
    assert.ok(root.length >= 2)
    const wish = { images_older_than_s: 30 * DAY_S }
    const before = cached(host, 'acme').length
    const dry = await collect(host, { ...wish, dry_run: true })
    assert.equal(cached(host, 'acme').length, before)
    const done = await collect(host, wish)
    assert.deepEqual(member(done, 'images'), member(dry, 'images'))
    const [found, ...more] = member(done, 'images') as unknown[]
    assert.deepEqual([member(found, 'tenant'), more], ['acme', []])
    assert.ok(Number(member(found, 'bytes')) > 0)
    // The running pod's stays, and so does all of who uses its own.
    assert.deepEqual(cached(host, 'acme'), root)
    assert.ok(cached(host, 'bolt').length > root.length)
    const evicted = await host.until(
      'its record',
      async () => (await ofType(host, 'image.evicted'))[0],
    )
    assert.deepEqual(
      ['tenant', 'files', 'reason'].map((name) => member(evicted, name)),
      ['acme', before - root.length, 'age'],
    )
    await end(host, pod)
    await collect(host, wish)
    assert.deepEqual(cached(host, 'acme'), [])
    // It is had again, from the registry.
    await run(host, {})
  })

  test('is for operators; by itself it takes what agent.json says is old enough', async (t) => {
    const host = await podHost(t)
    const refused = await host.agent.tenant(host.token, {
      method: 'POST',
      path: '/v1/gc',
      body: {},
    })
    assert.deepEqual([refused.status, member(refused.json, 'code')], [403, 'FORBIDDEN'])
    const [old, kept] = [await run(host), await run(host)]
    await end(host, old)
    host.pass(29 * DAYS_MS)
    await end(host, kept)
    await host.agent.end()
    host.pass(2 * DAYS_MS)
    await host.agent.again()
    await host.until('the first round', async () =>
      (await host.agent.operator({ path: `/v1/tenants/acme/pods/${old}` })).status === 404
        ? true
        : null,
    )
    assert.equal(member(await host.inspect(kept), 'id'), kept)
    // What is removed is on record after it.
    const record = await host.until('its record', async () => {
      const [found] = await ofType(host, 'launch.removed')
      return found ?? null
    })
    assert.equal(member(record, 'actor', 'kind'), 'agent')
  })

  test('a removal that somebody asked for is on record with who did', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    await end(host, pod)
    const call = { method: 'DELETE', path: `/v1/tenants/acme/pods/${pod}` } as const
    assert.equal((await host.agent.tenant(host.token, call)).status, 204)
    const [record] = await ofType(host, 'launch.removed')
    assert.deepEqual(
      [member(record, 'reason'), member(record, 'actor', 'sub')],
      ['asked', 'acme/tests'],
    )
  })
})
