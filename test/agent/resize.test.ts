/** More disk for a running pod: within the tenant's quota, on record, and as spawn and guest answer. */
import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import { setTimeout as delay } from 'node:timers/promises'
import { SCRATCH_BYTES_MAX } from '../../agent/tasks/resize.ts'
import type { Canonical } from '../../policy/canonical.ts'
import { parsePodId } from '../../policy/index.ts'
import { member, type Reply, startAgent, type TestAgent } from './harness.ts'
import { leave, leaveRunning, POD, status } from './left-pod.ts'
import { records } from './stage.ts'

const PLACE = `/v1/tenants/acme/pods/${POD}`
const GIB = 2 ** 30
const OTHER = '01890000-0000-7000-8000-000000000002'

interface Scene {
  readonly agent: TestAgent
  readonly ask: (bytes: unknown) => Promise<Reply>
  /** Sizes that spawn was asked for. */
  readonly asked: () => readonly unknown[]
}

const disk = (pod: string, bytes: number, tenant = 'acme'): Canonical => ({
  ...Object(status('running', pod)),
  tenant,
  scratch_bytes: bytes,
})

/** A running pod of 256 MiB beside `others`, and a spawn that grants everything. */
async function scene(t: TestContext, others: readonly Canonical[] = []): Promise<Scene> {
  const agent = await startAgent(t)
  const token = await agent.onboard('acme')
  await leaveRunning(agent)
  let own = 2 ** 28
  agent.spawn.answer('list', () => ({ ok: true, pods: [disk(POD, own), ...others] }))
  agent.spawn.answer('resize', (request) => {
    own = Number(request['scratch_bytes'])
    return { ok: true, scratch_bytes: own }
  })
  await agent.again()
  return {
    agent,
    ask: (bytes) =>
      agent.tenant(token, {
        method: 'POST',
        path: `${PLACE}/resize`,
        body: { scratch_bytes: bytes },
      }),
    asked: () =>
      agent.spawn.requests.flatMap((one) => (one['op'] === 'resize' ? [one['scratch_bytes']] : [])),
  }
}

const recorded = async (agent: TestAgent): Promise<readonly unknown[]> =>
  (await records(agent)).flatMap((one) =>
    member(one, 'type') === 'launch.resize_requested'
      ? [[member(one, 'launch_id'), member(one, 'scratch_bytes'), member(one, 'actor', 'kind')]]
      : [],
  )

suite('agent/resize', () => {
  test('is on record before spawn is asked, and shows in the pod', async (t) => {
    const { agent, ask, asked } = await scene(t)
    let before: readonly unknown[] = []
    agent.spawn.answer('resize', async (request) => {
      before = await recorded(agent)
      return { ok: true, scratch_bytes: Number(request['scratch_bytes']) }
    })
    const reply = await ask(GIB)
    assert.equal(reply.status, 200, reply.text)
    assert.equal(member(reply.json, 'facts', 'scratch_bytes'), GIB)
    assert.deepEqual(asked(), [GIB])
    assert.deepEqual(before, [[POD, GIB, 'tenant']])
    const shown = await agent.operator({ path: PLACE })
    assert.equal(member(shown.json, 'facts', 'scratch_bytes'), GIB)
  })

  test('is refused with what the tenant’s other disks leave, and those of others do not count', async (t) => {
    const left = 2 * GIB
    const others = [disk(OTHER, SCRATCH_BYTES_MAX - 2 ** 28 - left), disk('x', 2 ** 40, 'else')]
    const { agent, ask, asked } = await scene(t, others)
    const refused = await ask(2 ** 28 + left + 4096)
    assert.deepEqual(
      [refused.status, member(refused.json, 'code'), member(refused.json, 'facts')],
      [
        429,
        'QUOTA_EXCEEDED',
        {
          what: 'scratch_bytes',
          asked: left + 4096,
          used: SCRATCH_BYTES_MAX - left,
          limit: SCRATCH_BYTES_MAX,
        },
      ],
      refused.text,
    )
    assert.deepEqual([asked(), await recorded(agent)], [[], []])
    assert.equal((await ask(2 ** 28 + left)).status, 200)
    assert.equal((await ask(2 ** 28 + left + 4096)).status, 429)
  })

  test('lets two pods of a tenant not take the last of it at the same time', async (t) => {
    const { agent } = await scene(t)
    await leave(agent, 'running', {}, parsePodId(OTHER))
    const sizes = new Map([
      [String(POD), SCRATCH_BYTES_MAX / 2],
      [OTHER, SCRATCH_BYTES_MAX / 4],
    ])
    const disks = (): Canonical => [...sizes].map(([pod, bytes]) => disk(pod, bytes))
    agent.spawn.answer('list', () => ({ ok: true, pods: disks() }))
    agent.spawn.answer('resize', async (request) => {
      const bytes = Number(request['scratch_bytes'])
      // Longer than the other one takes to look, if it does not wait.
      await delay(100)
      sizes.set(String(request['pod']), bytes)
      return { ok: true, scratch_bytes: bytes }
    })
    await agent.again()
    const resize = (pod: string, bytes: number): Promise<Reply> =>
      agent.operator({
        method: 'POST',
        path: `/v1/tenants/acme/pods/${pod}/resize`,
        body: { scratch_bytes: bytes },
      })
    const replies = await Promise.all([
      resize(POD, (SCRATCH_BYTES_MAX * 3) / 4),
      resize(OTHER, SCRATCH_BYTES_MAX / 2),
    ])
    assert.deepEqual(
      replies.map((one) => one.status),
      [200, 429],
    )
  })

  test('takes whole blocks and nothing else', async (t) => {
    const { agent, ask, asked } = await scene(t)
    for (const bytes of [0, -4096, 4097, 1.5, '4096', null, 2 ** 40 + 4096]) {
      const reply = await ask(bytes)
      assert.equal(member(reply.json, 'code'), 'BAD_REQUEST', `${bytes}: ${reply.text}`)
    }
    assert.deepEqual([asked(), await recorded(agent)], [[], []])
  })

  test('passes on what spawn and guest refuse, each under its code', async (t) => {
    const { agent, ask } = await scene(t)
    const before = await agent.operator({ path: PLACE })
    const codes = [
      ['SCRATCH_SHRINK', 422, 'SCRATCH_SHRINK'],
      ['SCRATCH_TOO_LARGE', 422, 'SCRATCH_TOO_LARGE'],
      ['HOST_FULL', 503, 'HOST_FULL'],
      ['RESIZE_FAILED', 502, 'RESIZE_FAILED'],
      ['RESIZE_UNCONFIRMED', 504, 'RESIZE_UNCONFIRMED'],
      ['POD_PAUSED', 409, 'POD_STATE_CONFLICT'],
      ['POD_BUSY', 409, 'POD_STATE_CONFLICT'],
      ['POD_NOT_RUNNING', 409, 'POD_STATE_CONFLICT'],
      ['HOST_RESOURCES', 503, 'SPAWN_UNAVAILABLE'],
    ] as const
    for (const [code, status_, word] of codes) {
      agent.spawn.answer('resize', () => ({ ok: false, code, message: 'no' }))
      const reply = await ask(GIB)
      assert.deepEqual([reply.status, member(reply.json, 'code')], [status_, word], reply.text)
    }
    // Spawn's word is for the size that was asked for.
    agent.spawn.answer('resize', () => ({ ok: true, scratch_bytes: 2 * GIB }))
    assert.equal(member((await ask(GIB)).json, 'code'), 'SPAWN_UNAVAILABLE')
    assert.deepEqual((await agent.operator({ path: PLACE })).json, before.json)
    assert.equal((await recorded(agent)).length, codes.length + 1, 'asked for all the same')
  })
})
