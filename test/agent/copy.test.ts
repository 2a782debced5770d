/** Copies and lists of processes by the API: decided, on record before the pod hears of them, and bounded. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { suite, test } from 'node:test'
import { WebSocket } from 'ws'
import { type GuestScene, guestScene } from './guest-scene.ts'
import { member } from './harness.ts'
import { POD } from './left-pod.ts'
import { records } from './stage.ts'

const PLACE = `/v1/tenants/acme/pods/${POD}`

const open = ({ agent, token }: GuestScene, query: string): WebSocket => {
  const url = `wss://127.0.0.1:${agent.httpsPort}${PLACE}/copy?${query}`
  const headers = { authorization: `Bearer ${token}` }
  const socket = new WebSocket(url, ['v5.channel.k8s.io'], { headers, rejectUnauthorized: false })
  socket.on('error', () => undefined)
  return socket
}

suite('agent/copy', () => {
  test('is on record before the pod hears of it, with its path', async (t) => {
    const place = await guestScene(t)
    const before: unknown[] = []
    const request = new Promise<unknown>((resolve) => {
      place.guest.heard = async (session, isNew) => {
        if (!isNew) return
        before.push(...(await records(place.agent)))
        session.start()
        session.exit(0, 0)
        resolve(session.request)
      }
    })
    const socket = open(place, 'direction=out&path=%2Fetc%2Fhosts&user=web')
    assert.deepEqual(await request, {
      app: null,
      errand: { kind: 'copy-out', path: '/etc/hosts' },
      user: 'web',
    })
    await once(socket, 'close')
    const intent = before.find((record) => member(record, 'type') === 'exec.intent')
    assert.deepEqual(
      ['errand', 'program', 'user', 'env_names'].map((name) => member(intent, name)),
      [{ kind: 'copy-out', path: '/etc/hosts' }, '', 'web', []],
    )
  })

  test('is refused before anything is promised', async (t) => {
    const place = await guestScene(t)
    const refusal = async (query: string): Promise<unknown> => {
      const socket = open(place, query)
      const [, answer] = await once(socket, 'unexpected-response')
      const chunks: Buffer[] = []
      for await (const chunk of answer as AsyncIterable<Buffer>) chunks.push(chunk)
      return member(JSON.parse(Buffer.concat(chunks).toString('utf8')), 'code')
    }
    for (const query of [
      'direction=out',
      'direction=out&path=etc',
      'direction=out&path=%2Fa%00b',
      'direction=out&path=%2Fa&owners=true',
      'direction=out&path=%2Fa&place=named',
      'direction=up&path=%2Fa',
      'direction=in&path=%2Fa&place=beside',
      'direction=in&path=%2Fa&command=sh',
      'direction=in&path=%2Fa&user=-1',
    ]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      assert.equal(await refusal(query), 'BAD_REQUEST', query)
    }
    const all = await records(place.agent)
    assert.ok(!all.some((record) => String(member(record, 'type')).startsWith('exec.')))
    await place.agent.operator({
      method: 'PATCH',
      path: '/v1/tenants/acme',
      body: { state: 'suspended' },
    })
    assert.equal(await refusal('direction=out&path=%2Fa'), 'TENANT_SUSPENDED')
    assert.equal(place.guest.sessions.size, 0)
  })
})
