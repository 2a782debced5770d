/** Paths of the host by the API: what of them is on record, in the spec and in answers, and what a tenant is told. */
import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import { member } from './harness.ts'
import { type PodHost, podHost } from './pod-host.ts'
import { DESCRIPTION } from './spawn-peer.ts'

async function hostWithPaths(t: TestContext): Promise<PodHost> {
  const host = await podHost(t)
  const digest = `sha256:${'c'.repeat(64)}`
  const container = { bundle: digest, digest, runtime: digest, version: 'runc version 1' }
  host.agent.spawn.answer('describe', () => ({
    ...DESCRIPTION,
    levels: { acme: ['container'] },
    host_paths: {
      data: { exec: false, ids: 3_000_000, tenants: ['acme'] },
      foreign: { exec: false, ids: null, tenants: ['bolt'] },
    },
    container,
    container_reason: null,
  }))
  const body = { trust: 'trusted' }
  const changed = await host.agent.operator({ method: 'PATCH', path: '/v1/tenants/acme', body })
  assert.equal(changed.status, 200, changed.text)
  return host
}

const asking = (name: string, changes: object = {}): object => ({
  isolation: 'container',
  mounts: [{ type: 'host', host_path: name, target: '/x', ...changes }],
})

suite('agent/host paths', () => {
  test('are on record by name, and in the spec as root has them', async (t) => {
    const host = await hostWithPaths(t)
    const reply = await host.launch('acme', undefined, asking('data', { sub_path: 'a/b' }))
    assert.equal(reply.status, 201, reply.text)
    const { spec, record } = await host.launches(1)
    assert.deepEqual(member(record, 'host_paths'), [
      { host_path: 'data', sub_path: 'a/b', read_only: false },
    ])
    const mount = { exec: false, ids: 3_000_000, kind: 'host', name: 'data', path: '/x' }
    assert.deepEqual(member(spec, 'apps', '0', 'mounts'), [
      { ...mount, read_only: false, sub_path: 'a/b' },
    ])
  })

  test('of others are not there, and what spawn finds wrong has its own code', async (t) => {
    const host = await hostWithPaths(t)
    const codeOf = async (body: object): Promise<unknown> => {
      const { status, json } = await host.launch('acme', undefined, body)
      return `${status} ${String(member(json, 'code'))}`
    }
    const [unheard, foreign] = await Promise.all(
      ['unheard', 'foreign'].map((name) => host.launch('acme', undefined, asking(name))),
    )
    assert.equal(member(foreign?.json, 'code'), 'HOST_PATH_UNKNOWN')
    const same = (text = ''): string => text.replaceAll(/unheard|foreign/gu, 'NAME')
    const sentences = [unheard, foreign].map((one) => same(String(member(one?.json, 'detail'))))
    assert.equal(sentences[0], sentences[1], 'that it is another’s is not told')
    assert.equal(await codeOf({ ...asking('data'), isolation: 'vm' }), '422 HOST_PATH_LEVEL')
    for (const path of ['/etc', '../etc', 'a/b']) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      assert.equal(await codeOf(asking(path)), '400 BAD_REQUEST', path)
      // oxlint-disable-next-line no-await-in-loop -- likewise
      const below = await codeOf(asking('data', { sub_path: `x/../${path}` }))
      assert.equal(below, '400 BAD_REQUEST', path)
    }
    for (const [code, status] of [
      ['HOST_PATH_UNKNOWN', 422],
      ['HOST_PATH_MISSING', 422],
      ['HOST_PATH_UNSAFE', 409],
      ['HOST_PATH_LEVEL', 422],
    ] as const) {
      host.refuseNext(code)
      // oxlint-disable-next-line no-await-in-loop -- likewise
      assert.equal(await codeOf(asking('data')), `${status} ${code}`)
    }
    host.refuseNext('HOST_PATH_CHANGED')
    assert.equal(await codeOf(asking('data')), '502 LAUNCH_FAILED')
  })
})
