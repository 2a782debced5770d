/** The unix socket and its local users: everybody may open it, and who they are is the kernel's word. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, statSync } from 'node:fs'
import type { Socket } from 'node:net'
import path from 'node:path'
import { text } from 'node:stream/consumers'
import { suite, type TestContext, test } from 'node:test'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import { connectAs } from '../audit/harness.ts'
import { startAgent, type TestAgent } from './harness.ts'

const OPERATOR = 64_011
const STRANGER = 64_012
const OTHER_STRANGER = 64_013
/** docs/limits.md: of 512 connections, those of users that are no operators. */
const STRANGERS_MAX = 256
const skip = process.geteuid?.() === 0 ? false : 'not root: there is no other user to be'

interface Opened {
  readonly agent: TestAgent
  readonly socket: string
}

async function open(t: TestContext): Promise<Opened> {
  const agent = await startAgent(t, { operators: [OPERATOR] })
  chmodSync(agent.directory, 0o755)
  return { agent, socket: path.join(agent.directory, 'run', AGENT_SOCKET) }
}

/** The whole answer to a request on this connection, which closes with it. */
async function get(socket: Socket, place: string, header = ''): Promise<string> {
  socket.write(`GET ${place} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n${header}\r\n`)
  return await text(socket)
}

suite('agent/server and local users', { skip }, () => {
  test('takes the uids of its configuration and root for operators, nobody else', async (t) => {
    const { socket } = await open(t)
    assert.equal(statSync(socket).mode & 0o777, 0o666)
    for (const uid of [OPERATOR, 0]) {
      assert.match(await get(connectAs(uid, socket), '/v1/tenants'), /^HTTP\/1.1 200 /u)
    }
    const refused = await get(connectAs(STRANGER, socket), '/v1/tenants')
    assert.match(refused, /^HTTP\/1.1 401 .*UNAUTHENTICATED/su)
    assert.match(refused, /User id 64012 is no operator/u)
  })

  test('takes a token from any user, and no more than the token says', async (t) => {
    const { agent, socket } = await open(t)
    const header = `Authorization: Bearer ${await agent.onboard('acme')}\r\n`
    const own = await get(connectAs(STRANGER, socket), '/v1/tenants/acme/pods', header)
    assert.match(own, /^HTTP\/1.1 200 /u)
    assert.match(await get(connectAs(STRANGER, socket), '/v1/tenants', header), /FORBIDDEN/u)
  })

  test('keeps connections free for operators when others take all they can get, and for others', async (t) => {
    const { agent, socket } = await open(t)
    const token = await agent.onboard('acme')
    const uids = [STRANGER, OTHER_STRANGER]
    const held = Array.from({ length: STRANGERS_MAX }, (_, index) =>
      connectAs(uids[index % 2] ?? STRANGER, socket),
    )
    t.after(() => {
      for (const one of held) one.destroy()
    })
    const closed: number[] = []
    for (const [index, one] of held.entries()) one.resume().once('close', () => closed.push(index))
    // Held as well, so that nothing is free by itself.
    const operators = Array.from({ length: 8 }, () => connectAs(OPERATOR, socket))
    for (const one of operators) {
      one.write('GET /v1/tenants HTTP/1.1\r\nHost: x\r\n\r\n')
      await once(one, 'data')
    }
    assert.deepEqual(closed, [])
    // Whoever brings a token has a place: of the one that has done nothing for longest.
    const header = `Authorization: Bearer ${token}\r\n`
    const own = await get(connectAs(OTHER_STRANGER, socket), '/v1/tenants/acme', header)
    assert.match(own, /^HTTP\/1.1 200 /u)
    if (closed.length === 0 && held[0] !== undefined) await once(held[0], 'close')
    assert.deepEqual(closed, [0])
    assert.ok(operators.every((one) => !one.closed))
    for (const one of operators) one.destroy()
  })
})
