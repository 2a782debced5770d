/** Pauses: on record before spawn hears of them, and seen in every view of the pod. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import { CHANGES } from '../../agent/tasks/changes.ts'
import { Pauses } from '../../agent/tasks/pauses.ts'
import { DEVICE_COUNTERS, DEVICES, MACHINE_COUNTERS } from '../../native/counters.ts'
import type { PodStatus } from '../../native/spawn-answers.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { member, type Reply, startAgent, type TestAgent } from './harness.ts'
import { leave, leaveRunning, POD, status } from './left-pod.ts'
import { records } from './stage.ts'

const PLACE = `/v1/tenants/acme/pods/${POD}`
const BUSY = { ok: false, code: 'POD_BUSY', message: 'the pod is being started or stopped' }

interface Scene {
  readonly agent: TestAgent
  readonly token: string
  readonly say: (verb: string) => Promise<Reply>
  /** State of the pod, by itself and in the list. */
  readonly states: () => Promise<readonly unknown[]>
}

/** A running pod of tenant acme, and a spawn that pauses it. */
async function scene(t: TestContext): Promise<Scene> {
  const agent = await startAgent(t)
  const token = await agent.onboard('acme')
  await leaveRunning(agent)
  let paused = false
  const set = (now: boolean) => (): Canonical => {
    paused = now
    return { ok: true }
  }
  agent.spawn.answer('list', () => ({
    ok: true,
    pods: [{ ...Object(status('running')), paused }],
  }))
  agent.spawn.answer('pause', set(true))
  agent.spawn.answer('resume', set(false))
  agent.spawn.answer('stop', set(false))
  await agent.again()
  return {
    agent,
    token,
    say: (verb) => agent.tenant(token, { method: 'POST', path: `${PLACE}/${verb}`, body: {} }),
    states: async () => {
      const one = await agent.tenant(token, { path: PLACE })
      const all = await agent.tenant(token, { path: '/v1/tenants/acme/pods' })
      return [member(one.json, 'state'), member(all.json, 'pods', '0', 'state')]
    },
  }
}

const changesOf = async (agent: TestAgent): Promise<readonly unknown[]> =>
  (await records(agent)).filter((one) => member(one, 'launch_id') === POD)

const asked = (agent: TestAgent, op: string): number =>
  agent.spawn.requests.filter((request) => request['op'] === op).length

const casemate = (agent: TestAgent, ...args: readonly string[]): Promise<string> =>
  new Promise((resolve) => {
    const cli = path.resolve(import.meta.dirname, '../../agent/cli/main.ts')
    const socket = path.join(agent.directory, 'run', AGENT_SOCKET)
    const env = { PATH: process.env['PATH'], NO_COLOR: '1' }
    const all = [cli, '--socket', socket, '-t', 'acme', ...args]
    execFile(process.execPath, all, { env }, (error, stdout, stderr) => {
      resolve(`${stdout}${stderr}exit ${error?.code ?? 0}`)
    })
  })

suite('agent/pause', () => {
  test('puts a pause and what ends it on record before spawn is asked', async (t) => {
    const { agent, say, states } = await scene(t)
    const seen: number[] = []
    const before = async (): Promise<Canonical> => {
      seen.push((await changesOf(agent)).length)
      return { ok: true }
    }
    agent.spawn.answer('pause', before)
    const paused = await say('pause')
    assert.equal(paused.status, 200, paused.text)
    assert.equal(member(paused.json, 'state'), 'paused')
    assert.deepEqual(await states(), ['paused', 'paused'])
    assert.equal((await say('pause')).status, 200)
    assert.deepEqual(seen, [1, 2], 'on record when spawn hears of it')
    const resumed = await say('resume')
    assert.equal(member(resumed.json, 'state'), 'running', resumed.text)
    assert.deepEqual(await states(), ['running', 'running'])
    await say('resume')
    assert.equal(asked(agent, 'resume'), 2, 'passed on all the same')
    const all = await changesOf(agent)
    assert.deepEqual(
      all.map((one) => [member(one, 'type'), member(one, 'actor', 'kind')]),
      [
        ['launch.pause_requested', 'tenant'],
        ['launch.pause_requested', 'tenant'],
        ['launch.resume_requested', 'tenant'],
        ['launch.resume_requested', 'tenant'],
      ],
    )
  })

  test('ends with a stop, and a new agent finds out from spawn', async (t) => {
    const { agent, say, states } = await scene(t)
    await say('pause')
    await agent.end()
    await agent.again()
    assert.deepEqual(await states(), ['paused', 'paused'])
    const stopped = await say('stop')
    assert.equal(member(stopped.json, 'state'), 'running', stopped.text)
  })

  test('says what spawn refuses, and for which states there is nothing to pause', async (t) => {
    const { agent, say, states } = await scene(t)
    const refusals = [
      [BUSY, 409, 'POD_STATE_CONFLICT'],
      [{ ...BUSY, code: 'POD_NOT_RUNNING' }, 409, 'POD_STATE_CONFLICT'],
      [{ ...BUSY, code: 'PAUSE_NOT_AVAILABLE' }, 501, 'PAUSE_NOT_AVAILABLE'],
      [{ ...BUSY, code: 'SPAWN_BUSY' }, 503, 'SPAWN_UNAVAILABLE'],
    ] as const
    for (const [answer, code, word] of refusals) {
      agent.spawn.answer('pause', () => answer)
      const reply = await say('pause')
      assert.deepEqual([reply.status, member(reply.json, 'code')], [code, word], reply.text)
    }
    assert.deepEqual(await states(), ['running', 'running'])
    const wrong = { method: 'POST', path: `${PLACE}/pause`, body: { for_ms: 1 } } as const
    assert.equal(member((await agent.operator(wrong)).json, 'code'), 'BAD_REQUEST')
  })

  test('pauses nothing that has ended or never ran', async (t) => {
    for (const state of ['requested', 'exited'] as const) {
      const agent = await startAgent(t)
      const token = await agent.onboard('acme')
      await leave(agent, state)
      await agent.again()
      for (const call of [
        { method: 'POST', path: `${PLACE}/pause`, body: {} },
        { method: 'POST', path: `${PLACE}/resume`, body: {} },
        { path: `${PLACE}/stats` },
      ] as const) {
        const reply = await agent.tenant(token, call)
        assert.equal(member(reply.json, 'code'), 'POD_STATE_CONFLICT', reply.text)
      }
      assert.equal(asked(agent, 'pause') + asked(agent, 'usage'), 0)
    }
  })

  test('lets a tenant write only so many of them into the log', async (t) => {
    const { agent, say } = await scene(t)
    const replies: Reply[] = []
    for (let turn = 0; turn <= CHANGES.most; turn += 1) {
      replies.push(await say(turn % 2 === 0 ? 'pause' : 'resume'))
    }
    const last = replies.at(-1)
    assert.equal(last?.status, 429, last?.text)
    assert.equal(member(last?.json, 'code'), 'TOO_MANY_REQUESTS')
    assert.match(String(last?.headers['retry-after']), /^[12]$/u)
    assert.equal((await changesOf(agent)).length, CHANGES.most)
    // A stop is never too much.
    assert.equal((await say('stop')).status, 202)
  })

  test('believes no list that was on its way while something changed', async () => {
    const pauses = new Pauses()
    const one: PodStatus = { ...Object(status('running')), paused: true }
    await pauses.look(() => Promise.resolve([one]))
    assert.equal(pauses.has(POD), true)
    await pauses.look(() => {
      pauses.note(POD, false)
      return Promise.resolve([one])
    })
    assert.equal(pauses.has(POD), false)
    await pauses.look(() => Promise.resolve([one, { ...one, pod: 'other', paused: false }]))
    assert.deepEqual([pauses.has(POD), pauses.has('other')], [true, false])
    await pauses.look(() => Promise.resolve([]))
    assert.equal(pauses.has(POD), false)
  })
})

const named = (names: readonly string[], value: Canonical): { [name: string]: Canonical } =>
  Object.fromEntries(names.map((name) => [name, value]))

const METRICS: { readonly [name: string]: Canonical } = {
  ok: true,
  machine: { ...named(MACHINE_COUNTERS, 3), refused_msrs: 7 },
  devices: {
    ...named(DEVICES, named(DEVICE_COUNTERS, 0)),
    net: { ...named(DEVICE_COUNTERS, 0), dropped_mac: 5, dropped_address: 6, invalid_queues: 2 },
  },
}
const USAGE = {
  cpu_us: 1_500_000,
  cpu_throttled_us: null,
  memory_bytes: 32 << 20,
  memory_peak_bytes: null,
  scratch_bytes: 1 << 28,
  scratch_used_bytes: 4096,
  tasks: 4,
}

suite('agent/stats', () => {
  test('shows what the kernel and the VMM count, all of it and nothing else', async (t) => {
    const { agent, token } = await scene(t)
    agent.spawn.answer('usage', () => ({ ok: true, usage: USAGE }))
    agent.spawn.answer('metrics', () => METRICS)
    const { json, text } = await agent.tenant(token, { path: `${PLACE}/stats` })
    assert.deepEqual(member(json, 'usage'), USAGE, text)
    const { ok: _ok, ...counters } = METRICS
    assert.deepEqual(member(json, 'counters'), counters)
    assert.deepEqual([member(json, 'pod'), member(json, 'state')], [POD, 'running'])
    const printed = await casemate(agent, 'stats', POD)
    assert.match(printed, /^cpu +1\.5 s\ncpu throttled +-\nmemory +32\.0 MiB$/mu)
    assert.match(printed, /^refused_msrs +7$/mu)
    assert.match(printed, /^net +0 +0 +0 +0\.0 ms +2 +11$/mu)
    assert.match(printed, /exit 0$/u)
  })

  test('shows of a paused pod what the kernel counts', async (t) => {
    const { agent, token } = await scene(t)
    agent.spawn.answer('usage', () => ({ ok: true, usage: USAGE }))
    agent.spawn.answer('metrics', () => ({ ok: false, code: 'POD_PAUSED', message: 'paused' }))
    const { json, text } = await agent.tenant(token, { path: `${PLACE}/stats` })
    assert.deepEqual([member(json, 'state'), member(json, 'counters')], ['paused', null], text)
    assert.match(
      await casemate(agent, 'stats', POD),
      /^memory +32\.0 MiB$[^]*paused: .*\nexit 0$/mu,
    )
  })

  test('watches until the pod has ended, one JSON document a line', async (t) => {
    const { agent } = await scene(t)
    agent.spawn.answer('metrics', () => METRICS)
    let looks = 0
    agent.spawn.answer('usage', () => {
      looks += 1
      if (looks < 3) return { ok: true, usage: USAGE }
      return { ok: false, code: 'POD_NOT_RUNNING', message: 'no pod of this launch id runs' }
    })
    const printed = await casemate(agent, '-o', 'json', 'stats', '-w', '--interval', '1', POD)
    const lines = printed.split('\n').filter((line) => line.startsWith('{'))
    assert.deepEqual(
      lines.map((line) => member(JSON.parse(line), 'usage', 'tasks')),
      [4, 4],
    )
    assert.match(printed, /is ending[^\n]*\nexit 0$/u)
  })

  test('takes no counter that the API does not name, and misses none', async (t) => {
    const { agent, token } = await scene(t)
    agent.spawn.answer('usage', () => ({ ok: true, usage: USAGE }))
    const { exits_mmio: _gone, ...fewer } = Object(METRICS['machine'])
    const bad: readonly Canonical[] = [
      { ...METRICS, machine: { ...Object(METRICS['machine']), secrets: 1 } },
      { ...METRICS, machine: fewer },
      { ...METRICS, devices: { ...Object(METRICS['devices']), vsock: {} } },
      { ...METRICS, devices: { ...Object(METRICS['devices']), rng: { requests: -1 } } },
    ]
    for (const answer of bad) {
      agent.spawn.answer('metrics', () => answer)
      const reply = await agent.tenant(token, { path: `${PLACE}/stats` })
      assert.deepEqual([reply.status, member(reply.json, 'code')], [503, 'SPAWN_UNAVAILABLE'])
    }
  })
})
