/** What is under way with an access token ends when that is revoked, and nothing of another one. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { suite, type TestContext, test } from 'node:test'
import { Agent as Dispatcher, request } from 'undici'
import { WebSocket } from 'ws'
import type { GuestPeer, GuestSession } from './guest-peer.ts'
import { guestScene } from './guest-scene.ts'
import { member, type TestAgent } from './harness.ts'
import { POD } from './left-pod.ts'
import { records } from './stage.ts'

const TOKENS = '/v1/tenants/acme/tokens'

/** A session of exec in the pod that runs; it is a caller's own connection. */
async function session(agent: TestAgent, guest: GuestPeer, token: string) {
  const begun = new Promise<GuestSession>((resolve) => {
    guest.heard = (one, isNew) => {
      if (isNew) resolve(one)
    }
  })
  const query = 'command=sh&stdin=true&stdout=true&stderr=true'
  const url = `wss://127.0.0.1:${agent.httpsPort}/v1/tenants/acme/pods/${POD}/exec?${query}`
  const headers = { authorization: `Bearer ${token}` }
  const socket = new WebSocket(url, ['v5.channel.k8s.io'], { headers, rejectUnauthorized: false })
  socket.on('error', () => undefined)
  await once(socket, 'open')
  const found = await begun
  found.start()
  return { socket, closed: once(socket, 'close'), session: found }
}

/** Events that are followed; resolves when the answer has begun. */
async function follow(
  t: TestContext,
  agent: TestAgent,
  token: string,
): Promise<() => Promise<string>> {
  const dispatcher = new Dispatcher({ connect: { rejectUnauthorized: false } })
  t.after(() => dispatcher.destroy())
  const url = `https://127.0.0.1:${agent.httpsPort}/v1/tenants/acme/events?follow=true`
  const headers = { authorization: `Bearer ${token}` }
  const { statusCode, body } = await request(url, { dispatcher, headers })
  assert.equal(statusCode, 200)
  return () => body.text()
}

async function exited(agent: TestAgent): Promise<unknown> {
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- asking again is the point
    const all = await records(agent)
    const found = all.find((record) => member(record, 'type') === 'exec.ended')
    if (found !== undefined) return found
  }
}

suite('agent/live tokens', () => {
  test('a revoked token ends its events and its session, on record, and no other’s', async (t) => {
    const { agent, guest, token } = await guestScene(t)
    const body = { name: 'other' }
    const other = await agent.operator({ method: 'POST', path: TOKENS, body })
    const mine = await session(agent, guest, token)
    const theirs = await session(agent, guest, String(member(other.json, 'token')))
    const events = await follow(t, agent, token)
    const cut = assert.rejects(events())
    const claims = Buffer.from(token.split('.')[1] ?? '', 'base64url').toString('utf8')
    const path = `${TOKENS}/${String(member(JSON.parse(claims), 'jti'))}`
    const closed = new Promise<void>((resolve) => {
      guest.heard = (one) => {
        if (one.closed) resolve()
      }
    })
    assert.equal((await agent.operator({ method: 'DELETE', path })).status, 204)
    await Promise.all([mine.closed, cut, closed])
    mine.session.exit(1, 1)
    assert.equal(member(await exited(agent), 'reason'), 'caller-gone')
    assert.equal(theirs.socket.readyState, theirs.socket.OPEN)
    assert.ok(!theirs.session.closed)
    theirs.session.exit(0, 3)
    await theirs.closed
  })
})
