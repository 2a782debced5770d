/** The list of a pod's processes, of a pod that may say anything. */
import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import type { GuestPeer, GuestSession } from './guest-peer.ts'
import { guestScene } from './guest-scene.ts'
import { member, type Reply, type TestAgent } from './harness.ts'
import { POD } from './left-pod.ts'
import { records } from './stage.ts'

const PROCESS = {
  pid: 1,
  ppid: 0,
  uid: 33,
  user: 'web',
  state: 'S',
  threads: 2,
  cpu_us: 10_000,
  memory_bytes: 4096,
  command: '/bin/web --port 80',
}

interface Scene {
  readonly agent: TestAgent
  readonly guest: GuestPeer
  readonly ask: () => Promise<Reply>
}

async function scene(t: TestContext): Promise<Scene> {
  const { agent, guest, token } = await guestScene(t)
  const path = `/v1/tenants/acme/pods/${POD}/processes`
  return { agent, guest, ask: () => agent.tenant(token, { path }) }
}

/** A pod that says this, as far as it is let, and ends so. */
function says(text: string, code = 0): GuestPeer['heard'] {
  const left = new WeakMap<GuestSession, Buffer>()
  return (session, isNew) => {
    if (isNew) {
      session.start()
      left.set(session, Buffer.from(text))
    }
    const rest = left.get(session)
    if (rest === undefined || session.closed) return
    const after = session.print(rest)
    left.set(session, after)
    if (after.length > 0) return
    left.delete(session)
    session.exit(0, code)
  }
}

suite('agent/processes', () => {
  test('are told as the pod tells them, on record', async (t) => {
    const { agent, guest, ask } = await scene(t)
    const nameless = { ...PROCESS, pid: 7, user: null }
    guest.heard = says(`${JSON.stringify(PROCESS)}\n${JSON.stringify(nameless)}\n`, 1)
    const told = await ask()
    assert.deepEqual([told.status, told.json], [200, { processes: [PROCESS, nameless] }])
    const own = (await records(agent)).filter((one) =>
      String(member(one, 'type')).startsWith('exec.'),
    )
    assert.deepEqual(
      own.map((one) => [member(one, 'type'), member(one, 'errand'), member(one, 'reason')]),
      [
        ['exec.intent', { kind: 'processes', path: null }, undefined],
        ['exec.ended', undefined, 'exit'],
      ],
    )
  })

  test('are no list that steers a terminal, is none, or has no end', async (t) => {
    const { guest, ask } = await scene(t)
    const line = (more: object): string => `${JSON.stringify({ ...PROCESS, ...more })}\n`
    for (const [text, code] of [
      [line({ command: '\u001b[2J' }), 0],
      [line({ command: 'x'.repeat(513) }), 0],
      [line({ user: '\n' }), 0],
      [line({ pid: -1 }), 0],
      [line({ pid: 1.5 }), 0],
      [line({ memory_bytes: 2 ** 60 }), 0],
      [line({ state: undefined }), 0],
      ['null\n', 0],
      ['{\n', 0],
      [line({}).slice(0, -1), 0],
      [line({}).repeat(4097), 0],
      [' '.repeat(5 << 20), 0],
      [line({}), 2],
    ] as const) {
      guest.heard = says(text, code)
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const { status, json } = await ask()
      const what = text.slice(0, 200)
      assert.deepEqual([status, member(json, 'code')], [502, 'PROCESSES_UNAVAILABLE'], what)
    }
    guest.heard = says(line({}))
    assert.equal((await ask()).status, 200)
  })
})
