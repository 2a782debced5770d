/** Signals to a running pod: on record first, then a frame on the pod stream, as the VMM gets it. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { member } from './harness.ts'
import { exitCode, type PodHost, podHost, run } from './pod-host.ts'
import { records } from './stage.ts'

/** Numbers of the SIGNAL frames that the pod's VMM was sent; docs/formats.md section 7. */
function signalsOf(host: PodHost, launch: string): number[] {
  const signals: number[] = []
  host.streamOf(launch).on('data', (bytes: Buffer) => {
    for (let at = 0; at + 12 <= bytes.length; at += 12) {
      assert.deepEqual([bytes.readUInt8(at), bytes.readUInt32LE(at + 4)], [5, 4])
      signals.push(bytes.readUInt32LE(at + 8))
    }
  })
  return signals
}

const recorded = async (host: PodHost, type: string): Promise<readonly unknown[]> =>
  (await records(host.agent)).filter((record) => member(record, 'type') === type)

suite('agent/kill', () => {
  test('sends any signal by name or number, each on record, and KILL when none is named', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    await host.launches(1)
    const signals = signalsOf(host, pod)
    for (const body of [{ signal: 'USR1' }, { signal: 'SIGHUP' }, { signal: '40' }, {}]) {
      const reply = await host.post(`${pod}/kill`, body)
      assert.equal(reply.status, 202, reply.text)
    }
    await host.until('four signals', () => (signals.length === 4 ? signals : null))
    assert.deepEqual(signals, [10, 1, 40, 9])
    assert.deepEqual(
      (await recorded(host, 'launch.signal_requested')).map((record) => [
        member(record, 'signal'),
        member(record, 'launch_id'),
        member(record, 'actor', 'kind'),
      ]),
      signals.map((signal) => [signal, pod, 'tenant']),
    )
    const bad = await host.post(`${pod}/kill`, { signal: 'NONE' })
    assert.deepEqual([bad.status, member(bad.json, 'code')], [400, 'BAD_REQUEST'])
    host.end(pod, exitCode(0))
    await host.until('its end', async () =>
      member(await host.inspect(pod), 'state') === 'exited' ? true : null,
    )
    const late = await host.post(`${pod}/kill`)
    assert.deepEqual([late.status, member(late.json, 'code')], [409, 'POD_STATE_CONFLICT'])
  })

  test('sends no more than may be put on record', async (t) => {
    const host = await podHost(t)
    const pod = await run(host)
    await host.launches(1)
    const signals = signalsOf(host, pod)
    const replies = await Promise.all(
      Array.from({ length: 40 }, () => host.post(`${pod}/kill`, { signal: 'URG' })),
    )
    const sent = replies.filter(({ status }) => status === 202).length
    assert.equal(sent, 30)
    assert.ok(replies.every(({ status }) => status === 202 || status === 429))
    await host.until('thirty', () => (signals.length === 30 ? true : null))
    assert.equal((await recorded(host, 'launch.signal_requested')).length, 30)
  })

  test('KILL and the stop signal are the end of a restart rule, others are not', async (t) => {
    const host = await podHost(t)
    // The image says SIGINT.
    for (const [signal, state] of [
      ['USR2', 'restarting'],
      ['INT', 'exited'],
      ['KILL', 'exited'],
    ] as const) {
      const pod = await run(host, { restart: 'always' })
      const launch = String(member(await host.inspect(pod), 'launch'))
      assert.equal((await host.post(`${pod}/kill`, { signal })).status, 202)
      host.end(launch, { ...exitCode(9), how: 'signal', cause: 'APP_SIGNAL' })
      await host.until(`${signal}: ${state}`, async () =>
        member(await host.inspect(pod), 'state') === state ? true : null,
      )
    }
  })

  test('stop takes the time of the pod, and the spec has its signal', async (t) => {
    const host = await podHost(t)
    const own = await run(host, { stop_signal: 'SIGQUIT', stop_timeout_ms: 1234 })
    const image = await run(host)
    await host.launches(2)
    assert.deepEqual(
      host.started.map(({ spec }) => [
        member(spec, 'apps', '0', 'stop_signal'),
        member(spec, 'limits', 'stop_ms'),
      ]),
      [
        [3, 1234],
        [2, 10_000],
      ],
    )
    await host.post(`${own}/stop`)
    await host.post(`${image}/stop`, { timeout_ms: 77 })
    const asked = host.agent.spawn.requests.filter(({ op }) => op === 'stop')
    assert.deepEqual(
      asked.map((request) => request['timeout_ms']),
      [1234, 77],
    )
    for (const body of [{ stop_signal: 'NOT' }, { stop_timeout_ms: 600_001 }]) {
      assert.equal((await host.launch('acme', undefined, body)).status, 400)
    }
  })
})
