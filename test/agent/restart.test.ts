/**
 * Pods that are started again: each start a launch of its own, decided anew. The clock of the agent is
 * the test's, so that no test waits for a back-off.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { suite, test } from 'node:test'
import { generateSigningKey } from '../../agent/images/index.ts'
import { STARTS_KEPT } from '../../agent/tasks/restart.ts'
import { parsePodId, parseTenantId } from '../../policy/index.ts'
import { systemScope } from '../../tenants/index.ts'
import { member } from './harness.ts'
import { putImage, REPOSITORY } from './images/support/image.ts'
import { becomes, exitCode, type PodHost, podHost, run } from './pod-host.ts'
import { records } from './stage.ts'

const LONG = 120_000

const stateOf = async (host: PodHost, pod: string): Promise<unknown> =>
  member(await host.inspect(pod), 'state')

/** Lets the start end, and its back-off pass. */
async function crash(host: PodHost, pod: string, launch: string, code = 1): Promise<void> {
  host.end(launch, exitCode(code))
  await becomes(host, pod, 'restarting')
  host.pass(60_000)
}

const ofPod = async (host: PodHost, type: string): Promise<readonly unknown[]> =>
  (await records(host.agent)).filter((record) => member(record, 'type') === type)

suite('agent/restart', () => {
  test('a pod that failed is launched again under its id, with a ticket and records of its own', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'on-failure:5', env: ['A=b'], args: ['x'] })
    const first = await host.launches(1)
    assert.equal(first.pod, pod)
    await crash(host, pod, first.pod)
    const second = await host.launches(2)
    assert.notEqual(second.pod, pod)
    const running = await becomes(host, pod, 'running')
    assert.deepEqual(
      ['id', 'launch', 'attempt'].map((name) => member(running, name)),
      [pod, second.pod, 1],
    )
    // The same request, in a spec for this start alone.
    assert.deepEqual(second.spec, { ...first.spec, launch_id: second.pod })
    const restart = { pod, attempt: 1, rule: 'on-failure:5', after: pod }
    for (const type of ['launch.requested', 'launch.intent']) {
      const [one, other] = await ofPod(host, type)
      assert.equal(Object.hasOwn(Object(one), 'restart'), false)
      assert.deepEqual(member(other, 'restart'), restart)
      assert.equal(member(other, 'launch_id'), second.pod)
      assert.equal(member(other, 'actor', 'kind'), 'agent')
    }
    assert.deepEqual(member(second.record, 'restart'), restart)
    const listed = await host.agent.operator({ path: '/v1/tenants/acme/pods' })
    assert.equal(member(listed.json, 'pods', 'length'), 1)
    const starts = member(running, 'starts') as unknown[]
    assert.deepEqual(
      starts.map((start) => [member(start, 'launch'), member(start, 'exit', 'value')]),
      [
        [pod, 1],
        [second.pod, undefined],
      ],
    )
    // Any start's id names the pod; a record is of the start that is asked for.
    assert.equal(member(await host.inspect(second.pod), 'id'), pod)
    for (const [attempt, launch] of [
      ['?attempt=0', pod],
      ['', second.pod],
    ]) {
      const path = `/v1/tenants/acme/pods/${pod}/record${attempt}`
      const { json } = await host.agent.tenant(host.token, { path })
      assert.equal(member(json, 'record', 'launch_id'), launch)
    }
  })

  test('the image is the digest of the first start, wherever the tag leads by then', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'always' })
    const first = await host.launches(1)
    // Somebody moves the tag to an image that nobody signed.
    const other = putImage(host.registry, { config: { config: { Entrypoint: ['/bin/evil'] } } })
    await crash(host, pod, first.pod, 0)
    const second = await host.launches(2)
    const manifest = member(first.record, 'image', 'manifest')
    assert.equal(member(second.record, 'image', 'manifest'), manifest)
    assert.notEqual(other.digest, manifest)
    assert.match(
      String(member(second.record, 'image', 'ref')),
      new RegExp(`${REPOSITORY}@sha256:`, 'u'),
    )
  })

  test('on-failure ends with a success, and with as many restarts in a row as it has', async (t) => {
    const host = await podHost(t)
    const good = await run(host, { restart: 'on-failure' })
    host.end((await host.launches(1)).pod, exitCode(0))
    assert.equal(member(await becomes(host, good, 'exited'), 'restart', 'due'), null)
    const bad = await run(host, { restart: 'on-failure:2' })
    await crash(host, bad, (await host.launches(2)).pod)
    await crash(host, bad, (await host.launches(3)).pod)
    host.end((await host.launches(4)).pod, exitCode(7))
    const ended = await becomes(host, bad, 'exited')
    assert.deepEqual([member(ended, 'exit', 'value'), member(ended, 'attempt')], [7, 2])
    host.pass(LONG)
    const waited = await host.agent.operator({
      path: `/v1/tenants/acme/pods/${bad}/wait?timeout_s=5`,
    })
    assert.equal(waited.status, 200)
    assert.equal(host.started.length, 4)
  })

  test('waits out its back-off, longer each time, and holds no quota meanwhile', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'always' })
    const dues: number[] = []
    for (let start = 1; start <= 3; start += 1) {
      host.end((await host.launches(start)).pod, exitCode(1))
      const waiting = await becomes(host, pod, 'restarting')
      const span = Date.parse(String(member(waiting, 'restart', 'due')))
      dues.push(span - Date.parse(String(member(waiting, 'ended'))))
      const tenant = await host.agent.operator({ path: '/v1/tenants/acme' })
      assert.equal(member(tenant.json, 'quotas', 'pods', 'used'), 0)
      host.pass(60_000)
    }
    assert.deepEqual(
      dues.map((span) => Math.round(span / 1000)),
      [1, 2, 4],
    )
  })
})

suite('agent/restart: what was told to stop, and agents that end', () => {
  test('told to stop it is not started again: while it runs, while it waits, after the agent', async (t) => {
    const host = await podHost(t)
    const runs = await run(host, { restart: 'always' })
    await host.launches(1)
    assert.equal((await host.post(`${runs}/stop`)).status, 202)
    await becomes(host, runs, 'exited')
    const waits = await run(host, { restart: 'unless-stopped' })
    host.end((await host.launches(2)).pod, exitCode(1))
    await becomes(host, waits, 'restarting')
    const refused = await host.agent.tenant(host.token, {
      method: 'DELETE',
      path: `/v1/tenants/acme/pods/${waits}`,
    })
    assert.equal(refused.status, 409)
    const stopped = await host.post(`${waits}/stop`)
    assert.deepEqual([stopped.status, member(stopped.json, 'state')], [202, 'exited'], stopped.text)
    host.pass(LONG)
    await host.agent.end()
    await host.agent.again()
    const other = await run(host, {})
    await host.launches(3)
    for (const pod of [runs, waits]) assert.equal(await stateOf(host, pod), 'exited')
    assert.equal(await stateOf(host, other), 'running')
    assert.equal(host.started.length, 3)
    const stops = await ofPod(host, 'launch.stop_requested')
    assert.deepEqual(
      stops.map((record) => member(record, 'launch_id')),
      [runs, waits],
    )
  })

  test('goes on after the agent was ended in a back-off, once', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'always' })
    host.end((await host.launches(1)).pod, exitCode(1))
    await becomes(host, pod, 'restarting')
    await host.agent.end()
    host.pass(LONG)
    await host.agent.again()
    const second = await host.launches(2)
    await becomes(host, pod, 'running')
    assert.equal(member(second.record, 'restart', 'attempt'), 1)
    assert.equal(host.started.length, 2)
  })

  test('comes back after the host went down in order, unless it was told to stop', async (t) => {
    const host = await podHost(t)
    const always = await run(host, { restart: 'always' })
    const never = await run(host, {})
    await host.launches(2)
    await host.agent.endWithPods()
    host.pass(LONG)
    await host.agent.again()
    assert.equal((await host.launches(3)).spec['tenant'], 'acme')
    assert.equal(member(await becomes(host, always, 'running'), 'attempt'), 1)
    assert.equal(await stateOf(host, never), 'exited')
  })
})

suite('agent/restart: decided anew', () => {
  test('a retired key, a suspension or a smaller quota since ends it, on record', async (t) => {
    const host = await podHost(t)
    const otherPem = generateSigningKey().publicPem
    const change = async (body: object): Promise<void> => {
      const reply = await host.agent.operator({ method: 'PATCH', path: '/v1/tenants/acme', body })
      assert.equal(reply.status, 200, reply.text)
    }
    const tenant = await host.agent.operator({ path: '/v1/tenants/acme' })
    const rule = member(tenant.json, 'image_rule', 'rule')
    const quotas = { vcpus: 4, memory_mib: 4096, pods: 16, launches_per_minute: 1000 }
    const retired = JSON.parse(
      JSON.stringify(rule).replace(/-----BEGIN[^"]*/u, otherPem.replaceAll('\n', '\\n')),
    ) as object
    for (const [since, before, code] of [
      [{ image_rule: retired }, { image_rule: rule }, 'IMAGE_SIGNER_NOT_ACCEPTED'],
      [{ state: 'suspended' }, { state: 'active' }, 'TENANT_SUSPENDED'],
      [{ quotas: { ...quotas, pods: 0 } }, { quotas }, 'QUOTA_EXCEEDED'],
    ] as const) {
      const launched = host.started.length
      const pod = await run(host, { restart: 'always' })
      host.end((await host.launches(launched + 1)).pod, exitCode(1))
      await becomes(host, pod, 'restarting')
      await change(since)
      host.pass(60_000)
      const failed = await becomes(host, pod, 'failed')
      assert.equal(member(failed, 'problem', 'code'), code)
      const refused = (await ofPod(host, 'launch.refused')).at(-1)
      assert.equal(member(refused, 'refusal', 'code'), code)
      assert.deepEqual(member(refused, 'restart'), { pod, attempt: 1, rule: 'always', after: pod })
      await change(before)
      host.pass(LONG)
      assert.equal(host.started.length, launched + 1)
    }
  })

  test('what passes by itself is waited for: spawn without room, a registry that is away', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'always' })
    host.refuseNext('HOST_FULL')
    await crash(host, pod, (await host.launches(1)).pod)
    await host.launches(2)
    const waiting = await becomes(host, pod, 'restarting')
    assert.deepEqual(
      [member(waiting, 'problem', 'code'), member(waiting, 'attempt')],
      ['HOST_FULL', 1],
    )
    host.pass(60_000)
    const third = await host.launches(3)
    assert.equal(member(await becomes(host, pod, 'running'), 'launch'), third.pod)
    assert.equal(member(third.record, 'restart', 'attempt'), 2)
  })

  test('a registry that is away is waited for, however often, on folded records', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'always' })
    host.end((await host.launches(1)).pod, exitCode(1))
    host.registry.intercept = () => ({ status: 500 })
    host.pass(60_000)
    for (const attempt of [1, 2, 3]) {
      await host.until(`attempt ${attempt}`, async () => {
        const found = await host.inspect(pod)
        const waits =
          member(found, 'state') === 'restarting' && member(found, 'attempt') === attempt
        return waits ? found : null
      })
      host.pass(60_000)
    }
    host.registry.intercept = () => null
    assert.equal((await host.launches(2)).spec['tenant'], 'acme')
    await becomes(host, pod, 'running')
    assert.equal((await ofPod(host, 'launch.refused')).length, 1)
  })

  test('a start that an ended agent left half-way is tried again, after its own back-off', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'always' })
    host.end((await host.launches(1)).pod, exitCode(1))
    await becomes(host, pod, 'restarting')
    await host.agent.end()
    host.pass(LONG)
    const tenants = host.store()
    const acme = systemScope(parseTenantId('acme'))
    const left = parsePodId('01890000-0000-7000-8000-000000000001')
    // Two that look at once make one start.
    const begun = await Promise.all([
      tenants.beginRestart(acme, parsePodId(pod), left),
      tenants.beginRestart(
        acme,
        parsePodId(pod),
        parsePodId('01890000-0000-7000-8000-000000000002'),
      ),
    ])
    assert.equal(begun.filter((one) => one !== null).length, 1)
    await tenants.close()
    await host.agent.again()
    const waiting = await becomes(host, pod, 'restarting')
    assert.deepEqual([member(waiting, 'attempt'), member(waiting, 'restart', 'in_a_row')], [1, 2])
    assert.equal(host.started.length, 1)
    host.pass(LONG)
    assert.equal(member((await host.launches(2)).record, 'restart', 'attempt'), 2)
  })
})

suite('agent/restart: logs and what is kept', () => {
  test('keeps the newest starts of a pod that ends again and again', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'always' })
    const most = STARTS_KEPT + 1
    for (let start = 1; start <= most + 2; start += 1) {
      await crash(host, pod, (await host.launches(start)).pod)
    }
    await host.launches(most + 3)
    await becomes(host, pod, 'running')
    const wanted = Array.from({ length: most }, (_, index) => index + 3)
    // The oldest is forgotten when the newest runs, a little later.
    const starts = await host.until('as many starts as are kept', async () => {
      const found = member(await host.inspect(pod), 'starts') as unknown[]
      const logs = readdirSync(join(host.agent.stateDir, 'pods'))
      return found.length === most && logs.length === most ? found : null
    })
    assert.deepEqual(
      starts.map((start) => member(start, 'attempt')),
      wanted,
    )
    const logs = readdirSync(join(host.agent.stateDir, 'pods'))
    const kept = starts.map((start) => String(member(start, 'launch')))
    assert.deepEqual(new Set(logs), new Set(kept))
  })

  test('its log goes on over its starts, and rm takes all of them', async (t) => {
    const host = await podHost(t)
    const pod = await run(host, { restart: 'on-failure:1' })
    const logs = `/v1/tenants/acme/pods/${pod}/logs`
    await host.launches(1)
    await host.write(pod, 'first start\n')
    const followed = host.agent.tenant(host.token, { path: `${logs}?follow=true` })
    await crash(host, pod, pod)
    const second = await host.launches(2)
    await becomes(host, pod, 'running')
    await host.write(second.pod, 'second start\n')
    host.end(second.pod, exitCode(1))
    await becomes(host, pod, 'exited')
    const headers = { accept: 'text/plain' }
    const all = await host.agent.tenant(host.token, { path: logs, headers })
    assert.equal(all.text, 'first start\nsecond start\n')
    const lines = (await followed).text.trim().split('\n')
    assert.deepEqual(
      lines.map((line) => [
        member(JSON.parse(line), 'attempt'),
        Buffer.from(String(member(JSON.parse(line), 'data')), 'base64').toString(),
      ]),
      [
        [0, 'first start\n'],
        [1, 'second start\n'],
      ],
    )
    const rest = await host.agent.tenant(host.token, { path: `${logs}?attempt=1&since=0`, headers })
    assert.equal(rest.text, 'second start\n')
    const removed = await host.agent.tenant(host.token, {
      method: 'DELETE',
      path: `/v1/tenants/acme/pods/${second.pod}`,
    })
    assert.equal(removed.status, 204, removed.text)
    for (const id of [pod, second.pod]) {
      assert.equal((await host.agent.operator({ path: `/v1/tenants/acme/pods/${id}` })).status, 404)
    }
  })

  test('a rule and credentials together are refused: those are kept nowhere', async (t) => {
    const host = await podHost(t)
    const registry_credentials = { username: 'u', password: 'p' }
    const reply = await host.launch('acme', undefined, { restart: 'always', registry_credentials })
    assert.deepEqual(
      [reply.status, member(reply.json, 'code')],
      [422, 'RESTART_NEEDS_OPEN_REGISTRY'],
    )
    const no = await host.launch('acme', undefined, { restart: 'sometimes' })
    assert.deepEqual([no.status, member(no.json, 'code')], [400, 'BAD_REQUEST'])
  })
})
