/** The stream of events: whose they are, what is in them, and that none is lost or doubled, whatever ends meanwhile. */
import assert from 'node:assert/strict'
import path from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { suite, test } from 'node:test'
import { casemate } from './command-line.ts'
import { member, type Reply } from './harness.ts'
import { becomes, exitCode, type PodHost, podHost, run } from './pod-host.ts'
import { records } from './stage.ts'

const LONG = 120_000

function eventsIn(reply: Reply): readonly unknown[] {
  assert.equal(reply.status, 200, reply.text)
  return linesOf(reply.text)
}

const linesOf = (text: string): readonly unknown[] =>
  text
    .split('\n')
    .filter((line) => line !== '')
    .map((line): unknown => JSON.parse(line))

const listed = async (host: PodHost, query = ''): Promise<readonly unknown[]> =>
  eventsIn(await host.agent.tenant(host.token, { path: `/v1/tenants/acme/events${query}` }))

const types = (events: readonly unknown[]): unknown[] => events.map((one) => member(one, 'type'))

/** Indexes of a tenant's records in the log, by the log itself. */
async function recordsOf(host: PodHost, tenant: string): Promise<readonly number[]> {
  const all = await records(host.agent)
  return all.flatMap((record, index) => (member(record, 'tenant') === tenant ? [index] : []))
}

suite('agent/events', () => {
  test('tells the life of a pod: started, ended, started again, told to stop, removed or not', async (t) => {
    const host = await podHost(t)
    const labels = { app: 'shop' }
    const pod = await run(host, { name: 'web', restart: 'always', labels })
    host.end((await host.launches(1)).pod, { ...exitCode(7), text: 'seven' })
    await becomes(host, pod, 'restarting')
    host.pass(LONG)
    const second = await host.launches(2)
    await becomes(host, pod, 'running')
    assert.equal((await host.post('web/kill', { signal: 'HUP' })).status, 202)
    assert.equal((await host.post('web/stop')).status, 202)
    await becomes(host, pod, 'exited')
    const events = await listed(host, '?type=launch')
    assert.deepEqual(types(events), [
      'launch.requested',
      'launch.intent',
      'launch.started',
      'launch.exited',
      'launch.requested',
      'launch.intent',
      'launch.started',
      'launch.signal_requested',
      'launch.stop_requested',
      'launch.exited',
    ])
    for (const event of events) {
      assert.deepEqual(
        ['tenant', 'pod', 'name', 'labels'].map((name) => member(event, name)),
        ['acme', pod, 'web', labels],
      )
      assert.equal(Number(member(event, 'next')), Number(member(event, 'record')) + 1)
    }
    const [, , started, exited, , , again, signal, stop, end] = events
    assert.deepEqual([member(started, 'launch'), member(started, 'attempt')], [pod, 0])
    assert.deepEqual([member(again, 'launch'), member(again, 'attempt')], [second.pod, 1])
    assert.deepEqual(
      ['how', 'value', 'cause', 'text', 'reason'].map((name) => member(exited, 'facts', name)),
      ['code', 7, 'APP_EXIT', 'seven', 'exit'],
    )
    assert.equal(member(signal, 'facts', 'signal'), 1)
    assert.deepEqual(member(stop, 'actor'), { sub: 'acme/tests', kind: 'tenant' })
    assert.equal(member(end, 'facts', 'reason'), 'stop')
    // Nothing of it is the host's.
    assert.doesNotMatch(JSON.stringify(events), /"pid"|src_ip|jti|4711/u)
  })

  test('a refusal is an event, with its code', async (t) => {
    const host = await podHost(t)
    await host.agent.operator({
      method: 'PATCH',
      path: '/v1/tenants/acme',
      body: { state: 'suspended' },
    })
    const refused = await host.launch('acme')
    assert.equal(refused.status, 403)
    const [event] = await listed(host, '?type=launch.refused')
    assert.equal(member(event, 'facts', 'code'), 'TENANT_SUSPENDED')
  })

  test('filters by type, pod and label; a removed pod keeps its events, with its name', async (t) => {
    const host = await podHost(t)
    const web = await run(host, { name: 'web', labels: { app: 'shop', tier: 'front' } })
    const db = await run(host, { name: 'db', labels: { app: 'shop' } })
    for (const pod of [web, db]) {
      host.end(pod, exitCode(0))
      await becomes(host, pod, 'exited')
    }
    const whose = async (query: string): Promise<unknown[]> => [
      ...new Set((await listed(host, query)).map((event) => member(event, 'name'))),
    ]
    assert.deepEqual(await whose('?pod=web'), ['web'])
    assert.deepEqual(await whose(`?pod=${db}`), ['db'])
    assert.deepEqual(await whose('?label=app'), ['web', 'db'])
    assert.deepEqual(await whose('?label=app=shop&label=tier'), ['web'])
    assert.deepEqual(await whose('?label=app=other'), [])
    assert.deepEqual(types(await listed(host, '?type=launch.exited')), [
      'launch.exited',
      'launch.exited',
    ])
    const removed = { method: 'DELETE', path: '/v1/tenants/acme/pods/web' } as const
    assert.equal((await host.agent.tenant(host.token, removed)).status, 204)
    assert.deepEqual(await whose(`?pod=${web}&type=launch.exited`), ['web'])
    for (const query of ['?pod=web', '?pod=zzz']) {
      const reply = await host.agent.operator({ path: `/v1/tenants/acme/events${query}` })
      assert.deepEqual([reply.status, member(reply.json, 'code')], [404, 'NOT_FOUND'])
    }
  })
})

suite('agent/events: whose they are', () => {
  test('a tenant has its own alone, operators have all and the host’s', async (t) => {
    const host = await podHost(t)
    const token = await host.admit('bolt')
    const mine = await run(host, {})
    await host.launch('bolt')
    const theirs = eventsIn(await host.agent.tenant(token, { path: '/v1/tenants/bolt/events' }))
    assert.ok(theirs.length > 3)
    assert.deepEqual([...new Set(theirs.map((event) => member(event, 'tenant')))], ['bolt'])
    for (const tenant of ['acme', 'nobody']) {
      const other = await host.agent.tenant(token, { path: `/v1/tenants/${tenant}/events` })
      assert.deepEqual([other.status, member(other.json, 'code')], [404, 'NOT_FOUND'])
    }
    const asked = await host.agent.tenant(token, { path: `/v1/tenants/bolt/events?pod=${mine}` })
    assert.equal(asked.text, '')
    const all = await host.agent.tenant(token, { path: '/v1/events' })
    assert.deepEqual([all.status, member(all.json, 'code')], [403, 'FORBIDDEN'])
    const whole = eventsIn(await host.agent.operator({ path: '/v1/events' }))
    const log = await records(host.agent)
    assert.deepEqual(
      whole.map((event) => member(event, 'record')),
      Array.from({ length: whole.length }, (_, index) => index),
    )
    assert.ok(whole.length >= log.length - 1)
    assert.ok(types(whole).includes('agent.start'))
  })
})

suite('agent/events: positions', () => {
  test('go on from a position or a time; a place that is not kept is refused, one to come as well', async (t) => {
    const host = await podHost(t)
    for (let count = 0; count < 3; count += 1) await run(host, {})
    const all = await listed(host)
    const numbers = all.map((event) => Number(member(event, 'record')))
    assert.deepEqual(numbers, await recordsOf(host, 'acme'))
    for (const event of all) {
      const next = Number(member(event, 'next'))
      const rest = await listed(host, `?since=${next}`)
      assert.deepEqual(
        rest.map((one) => member(one, 'record')),
        numbers.filter((record) => record >= next),
      )
    }
    assert.deepEqual(await listed(host, `?from=${encodeURIComponent('2999-01-01T00:00:00Z')}`), [])
    assert.equal((await listed(host, '?from=1h')).length, all.length)
    const beyond = { path: '/v1/tenants/acme/events?since=100000' }
    assert.equal((await host.agent.tenant(host.token, beyond)).status, 400)
    await host.agent.end()
    const database = new DatabaseSync(path.join(host.agent.stateDir, 'casemate.db'))
    const floor = (numbers[4] ?? 0) + 1
    database.exec(`DELETE FROM events WHERE subject = 'acme' AND record < ${floor}`)
    database.exec(`INSERT INTO event_floors VALUES ('acme', ${floor})`)
    database.close()
    await host.agent.again()
    assert.equal((await listed(host, `?since=${floor}`)).length, numbers.length - 5)
    assert.equal((await listed(host)).length, numbers.length - 5)
    for (const query of [`?since=${floor - 1}`, '?from=1h']) {
      const gone = await host.agent.tenant(host.token, { path: `/v1/tenants/acme/events${query}` })
      assert.deepEqual(
        [gone.status, member(gone.json, 'code'), member(gone.json, 'facts', 'oldest')],
        [410, 'EVENTS_GONE', floor],
        gone.text,
      )
    }
  })

  test('the command line follows over restarts of the agent, and has each record once', async (t) => {
    const host = await podHost(t)
    const first = await run(host, {})
    const events = casemate(t, host, '-o', 'json', 'events', '-f')
    const printed = async (count: number): Promise<readonly unknown[]> =>
      await host.until(`${count} events`, () => {
        const lines = linesOf(events.stdout.slice(0, events.stdout.lastIndexOf('\n') + 1))
        return lines.length >= count ? lines : null
      })
    await printed(4)
    for (let round = 0; round < 2; round += 1) {
      await host.agent.end()
      if (round === 0) host.end(first, exitCode(0)) // while nobody looks
      await host.agent.again()
      await run(host, {})
    }
    await becomes(host, first, 'exited')
    const known = await recordsOf(host, 'acme')
    const found = await printed(known.length)
    assert.deepEqual(
      found.map((event) => member(event, 'record')),
      known,
    )
  })

  test('an index that is behind the log when the agent is killed is brought up to it, once', async (t) => {
    const host = await podHost(t)
    await run(host, {})
    const before = await listed(host)
    await host.agent.end()
    const database = new DatabaseSync(path.join(host.agent.stateDir, 'casemate.db'))
    const third = Number(member(before[2], 'record'))
    database.exec(`DELETE FROM events WHERE record >= ${third}`)
    database.exec(`UPDATE event_position SET next = ${third}`)
    database.close()
    await host.agent.again()
    assert.deepEqual(await listed(host), before)
  })
})
