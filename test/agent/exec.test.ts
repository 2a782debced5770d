/** Programs executed in running pods: on record before the guest hears of them, and bounded in every direction. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { suite, test } from 'node:test'
import { type RawData, WebSocket } from 'ws'
import { EXEC_SESSIONS_MAX } from '../../agent/tasks/exec.ts'
import { SESSIONS_MAX } from '../../native/pod-stream.ts'
import type { GuestPeer, GuestSession } from './guest-peer.ts'
import { type GuestScene, guestScene } from './guest-scene.ts'
import { member, type TestAgent } from './harness.ts'
import { POD, status } from './left-pod.ts'
import { records } from './stage.ts'

const PLACE = `/v1/tenants/acme/pods/${POD}`
const PROTOCOL = 'v5.channel.k8s.io'
const ALL = 'stdin=true&stdout=true&stderr=true'

/** A caller: what came on each channel, and how it ended. */
class Caller {
  readonly socket: WebSocket
  readonly said: Record<number, string> = { 1: '', 2: '', 3: '' }
  readonly closed: Promise<number>

  constructor(
    { agent, token }: Pick<GuestScene, 'agent' | 'token'>,
    query: string,
    protocol = PROTOCOL,
  ) {
    const url = `wss://127.0.0.1:${agent.httpsPort}${PLACE}/exec?${query}`
    const headers = { authorization: `Bearer ${token}` }
    this.socket = new WebSocket(url, [protocol], { headers, rejectUnauthorized: false })
    this.socket.on('error', () => undefined)
    this.socket.on('message', (data: RawData) => {
      const bytes = data as Buffer
      const channel = bytes[0] ?? -1
      this.said[channel] = (this.said[channel] ?? '') + bytes.toString('utf8', 1)
    })
    this.closed = new Promise((resolve) => this.socket.once('close', resolve))
  }

  async open(): Promise<this> {
    await once(this.socket, 'open')
    return this
  }

  send(channel: number, text: string | Buffer): void {
    this.socket.send(Buffer.concat([Buffer.from([channel]), Buffer.from(text)]))
  }

  async status(): Promise<unknown> {
    await this.closed
    return JSON.parse(this.said[3] ?? '')
  }
}

/** The code of the answer that comes in place of an upgrade. */
async function refusal(
  place: Pick<GuestScene, 'agent' | 'token'>,
  query: string,
  protocol?: string,
): Promise<unknown> {
  const { socket } = new Caller(place, query, protocol)
  const [, answer] = await once(socket, 'unexpected-response')
  const chunks: Buffer[] = []
  for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk)
  return member(JSON.parse(Buffer.concat(chunks).toString('utf8')), 'code')
}

/** A caller that was let in, however often it had to ask. */
async function opened(place: GuestScene, query: string): Promise<Caller> {
  for (;;) {
    const caller = new Caller(place, query)
    // oxlint-disable-next-line no-await-in-loop -- asking again is the point
    const open = await caller.open().catch(() => null)
    if (open !== null) return open
  }
}

/** The next session that is asked for. */
const nextSession = (guest: GuestPeer): Promise<GuestSession> =>
  new Promise((resolve) => {
    guest.heard = (session, isNew) => {
      if (isNew) resolve(session)
    }
  })

/** Waits until a session is as it should be. */
const until = (guest: GuestPeer, is: (session: GuestSession) => boolean): Promise<GuestSession> =>
  new Promise((resolve) => {
    const look = (session: GuestSession): void => {
      if (is(session)) resolve(session)
    }
    guest.heard = look
    for (const session of guest.sessions.values()) look(session)
  })

const execRecords = async (agent: TestAgent): Promise<readonly unknown[]> =>
  (await records(agent)).filter((record) => String(member(record, 'type')).startsWith('exec.'))

/** The records that a session must have at last. */
async function endOf(agent: TestAgent): Promise<unknown> {
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- asking again is the point
    const found = (await execRecords(agent)).find((one) => member(one, 'type') === 'exec.ended')
    if (found !== undefined) return found
  }
}

suite('agent/exec', () => {
  test('carries streams both ways, the size of a terminal and an exit code', async (t) => {
    const place = await guestScene(t)
    const asked = nextSession(place.guest)
    const caller = await new Caller(
      place,
      `command=cat&command=-&env=A%3D1&user=web&cwd=/tmp&${ALL}`,
    ).open()
    const session = await asked
    assert.deepEqual(session.request, {
      app: null,
      args: ['cat', '-'],
      cwd: '/tmp',
      env: ['A=1'],
      terminal: null,
      user: 'web',
    })
    session.start()
    const typed = until(place.guest, (one) => one.ended)
    caller.send(0, 'typed')
    caller.send(0, ' twice')
    caller.send(255, Buffer.from([0]))
    assert.equal((await typed).typed, 'typed twice')
    session.print('out')
    session.print('err', 1)
    session.exit(0, 7)
    assert.deepEqual(await caller.status(), {
      metadata: {},
      status: 'Failure',
      reason: 'NonZeroExitCode',
      message: 'command terminated with exit code 7',
      details: { causes: [{ reason: 'ExitCode', message: '7' }] },
    })
    assert.deepEqual([caller.said[1], caller.said[2], await caller.closed], ['out', 'err', 1000])
  })

  test('is on record before the VMM hears of it, with the receipt, and its end after it', async (t) => {
    const place = await guestScene(t)
    const { agent, guest } = place
    let before: readonly unknown[] = []
    guest.heard = async (session, isNew) => {
      if (!isNew) return
      before = await execRecords(agent)
      session.start()
      session.exit(1, 15)
    }
    const caller = new Caller(place, `command=/bin/x&command=secret&env=KEY%3Dsecret&${ALL}`)
    assert.equal(member(await caller.status(), 'details', 'causes', '0', 'message'), '143')
    const ended = await endOf(agent)
    assert.equal(before.length, 1)
    const [intent] = before
    assert.equal(member(intent, 'type'), 'exec.intent')
    assert.equal(member(intent, 'launch_id'), POD)
    assert.equal(member(intent, 'actor', 'sub'), 'acme/tests')
    assert.equal(member(intent, 'program'), '/bin/x')
    assert.deepEqual(member(intent, 'env_names'), ['KEY'])
    assert.equal(JSON.stringify(await execRecords(agent)).includes('secret'), false)
    assert.deepEqual(member(ended, 'exit'), { how: 'signal', value: 15 })
    assert.equal(member(ended, 'exec_id'), member(intent, 'exec_id'))
    assert.equal(member(ended, 'reason'), 'exit')
  })

  test('gives the VMM the record and its receipt, as the log has them', async (t) => {
    const place = await guestScene(t)
    const asked = nextSession(place.guest)
    const caller = await new Caller(place, `command=x&${ALL}`).open()
    const session = await asked
    assert.deepEqual(session.record, (await execRecords(place.agent))[0])
    assert.match(session.ticket, /^c2sp\.org\/tlog-proof@v1\n/u)
    session.fail(1, 'x is not in the image')
    const told = await caller.status()
    assert.equal(member(told, 'details', 'causes', '0', 'message'), '127')
    assert.equal(member(told, 'message'), 'x is not in the image')
    assert.equal(member(await endOf(place.agent), 'reason'), 'not-started')
  })

  test('gives a terminal its type, its size and no end of input that nobody typed', async (t) => {
    const place = await guestScene(t)
    const sized = until(place.guest, ({ size }) => size !== null)
    const caller = await new Caller(place, 'command=sh&tty=true&stdout=true').open()
    caller.send(4, JSON.stringify({ Width: 132, Height: 50 }))
    const session = await sized
    assert.deepEqual([session.request['env'], session.size], [['TERM=xterm'], [50, 132]])
    assert.equal(session.ended, false)
    caller.send(4, 'no size')
    assert.equal(await caller.closed, 1008)
    await until(place.guest, ({ closed }) => closed)
  })

  test('refuses with an ordinary answer what it refuses', async (t) => {
    const place = await guestScene(t)
    const { agent } = place
    const other = { agent, token: await agent.onboard('other') }
    assert.equal(await refusal(place, `command=x&${ALL}`, 'chat'), 'EXEC_PROTOCOL')
    assert.equal(await refusal(place, ALL), 'BAD_REQUEST')
    assert.equal(await refusal(place, 'command=x&cwd=tmp'), 'BAD_REQUEST')
    assert.equal(await refusal(place, 'command=x&privileged=true'), 'BAD_REQUEST')
    assert.equal(await refusal(place, 'command=x&container=sidecar'), 'NOT_FOUND')
    assert.equal(await refusal(other, 'command=x'), 'NOT_FOUND')
    assert.equal(await refusal({ agent, token: 'none' }, 'command=x'), 'UNAUTHENTICATED')
    const plain = await agent.tenant(place.token, { path: `${PLACE}/exec?command=x` })
    assert.deepEqual([plain.status, member(plain.json, 'code')], [426, 'EXEC_PROTOCOL'])
    await agent.operator({
      method: 'PATCH',
      path: '/v1/tenants/acme',
      body: { state: 'suspended' },
    })
    assert.equal(await refusal(place, 'command=x'), 'TENANT_SUSPENDED')
    const found = await execRecords(agent)
    assert.deepEqual(
      found.map((one) => member(one, 'type')),
      ['exec.refused'],
    )
    assert.deepEqual(member(found[0], 'refusal', 'policies'), ['exec.tenant-suspended'])
    assert.equal(place.guest.sessions.size, 0)
  })

  test('refuses while a pod is paused, and when it has ended', async (t) => {
    const place = await guestScene(t)
    const { agent, guest, token } = place
    agent.spawn.answer('pause', () => ({ ok: true }))
    await agent.tenant(token, { method: 'POST', path: `${PLACE}/pause`, body: {} })
    assert.equal(await refusal(place, 'command=x'), 'POD_STATE_CONFLICT')
    agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
    guest.hangUp()
    await agent.tenant(token, { path: `${PLACE}/wait` })
    assert.equal(await refusal(place, 'command=x'), 'POD_STATE_CONFLICT')
  })
})

suite('agent/exec bounds and ends', () => {
  test('holds up a process whose caller does not read, and no other', async (t) => {
    const place = await guestScene(t)
    const { guest } = place
    let flooding: GuestSession | null = null
    guest.heard = (session, isNew) => {
      if (session.request['user'] !== 'flood') {
        if (isNew) {
          session.start()
          session.print('quick')
          session.exit(0, 0)
        }
        return
      }
      if (isNew) session.start()
      flooding = session
      session.print(Buffer.alloc(16_384))
    }
    const slow = await new Caller(place, `command=yes&user=flood&${ALL}`).open()
    slow.socket.pause()
    const granted = (): number => flooding?.granted ?? 0
    // It ends when all that lies between is full; a second caller is served meanwhile, again and again.
    for (let [before, same] = [-1, 0]; same < 20; ) {
      // oxlint-disable-next-line no-await-in-loop
      const quick = await new Caller(place, `command=echo&${ALL}`).open()
      // oxlint-disable-next-line no-await-in-loop
      assert.equal(member(await quick.status(), 'status'), 'Success')
      same = granted() === before ? same + 1 : 0
      before = granted()
    }
    assert.ok(granted() < 16 << 20, `${granted()} bytes`)
    slow.socket.terminate()
    await until(guest, ({ closed }) => closed)
  })

  test('gathers what comes in many frames, and answers a caller that asks whether it is there', async (t) => {
    const place = await guestScene(t)
    const asked = nextSession(place.guest)
    const caller = await new Caller(place, `command=x&${ALL}`).open()
    let messages = 0
    caller.socket.on('message', () => {
      messages += 1
    })
    const session = await asked
    session.start()
    await until(place.guest, ({ credit }) => credit[0] > 0)
    const pong = once(caller.socket, 'pong')
    caller.socket.ping('here?')
    assert.equal(String((await pong)[0]), 'here?')
    const text = 'abcdefgh'.repeat(1000)
    for (const letter of text) session.print(letter)
    session.exit(0, 0)
    assert.equal(member(await caller.status(), 'status'), 'Success')
    assert.equal(caller.said[1], text)
    assert.ok(messages < text.length / 4, `${messages} messages for as many bytes in frames of one`)
  })

  test('hangs up when its caller goes, and says so', async (t) => {
    const place = await guestScene(t)
    const asked = nextSession(place.guest)
    const caller = await new Caller(place, `command=sleep&${ALL}`).open()
    const session = await asked
    session.start()
    const closed = until(place.guest, (one) => one.closed)
    caller.socket.terminate()
    await closed
    session.exit(1, 1)
    const ended = await endOf(place.agent)
    assert.equal(member(ended, 'reason'), 'caller-gone')
    assert.deepEqual(member(ended, 'exit'), { how: 'signal', value: 1 })
  })

  test('ends with its pod', async (t) => {
    const place = await guestScene(t)
    const asked = nextSession(place.guest)
    const caller = await new Caller(place, `command=sleep&${ALL}`).open()
    const session = await asked
    session.start()
    place.agent.spawn.answer('list', () => ({ ok: true, pods: [status('exited')] }))
    place.guest.hangUp()
    assert.equal(member(await caller.status(), 'details', 'causes', '0', 'message'), 'EXEC_CUT_OFF')
    assert.equal(member(await endOf(place.agent), 'reason'), 'pod-ended')
  })

  test('ends with the agent, which says so', async (t) => {
    const place = await guestScene(t)
    const asked = nextSession(place.guest)
    const caller = await new Caller(place, `command=sleep&${ALL}`).open()
    ;(await asked).start()
    await place.agent.end()
    await caller.closed
    await place.agent.again()
    assert.equal(member(await endOf(place.agent), 'reason'), 'agent-stopped')
  })

  test('has so many sessions of a pod and a tenant and no more, and gives them back', async (t) => {
    const place = await guestScene(t)
    assert.ok(EXEC_SESSIONS_MAX > SESSIONS_MAX)
    const callers: Caller[] = []
    for (let count = 0; count < SESSIONS_MAX; count += 1) {
      const asked = nextSession(place.guest)
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      callers.push(await new Caller(place, `command=sleep&${ALL}`).open())
      // oxlint-disable-next-line no-await-in-loop
      ;(await asked).start()
    }
    assert.equal(await refusal(place, 'command=x'), 'EXEC_SESSIONS_FULL')
    const [session] = place.guest.sessions.values()
    session?.exit(0, 0)
    await Promise.race(callers.map((caller) => caller.closed))
    const asked = nextSession(place.guest)
    await new Caller(place, `command=sleep&${ALL}`).open()
    await asked
  })

  test('ends the stream of a VMM that sends what nobody asked for', async (t) => {
    const place = await guestScene(t)
    const { guest } = place
    for (const misbehave of [
      (session: GuestSession): void => guest.say(session.number, 67, Buffer.alloc(16_385)),
      (session: GuestSession): void =>
        guest.say((session.number % 65_535) + 1, 67, Buffer.alloc(1)),
    ]) {
      const asked = nextSession(guest)
      // oxlint-disable-next-line no-await-in-loop -- until the agent has a fresh stream
      const caller = await opened(place, `command=x&${ALL}`)
      // oxlint-disable-next-line no-await-in-loop
      const session = await asked
      session.start()
      misbehave(session)
      // oxlint-disable-next-line no-await-in-loop
      const told = await caller.status()
      assert.equal(member(told, 'details', 'causes', '0', 'message'), 'EXEC_CUT_OFF')
    }
  })
})
