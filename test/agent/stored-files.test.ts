/** Configs and secrets, from the API to what spawn is given, and all the places where a secret must not be. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, statSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { member, type Reply } from './harness.ts'
import { exitCode, ofType, type PodHost, podHost } from './pod-host.ts'
import { records } from './stage.ts'

const SALT_BYTES = 32
const base64 = (text: string): string => Buffer.from(text).toString('base64')
const sha256 = (bytes: Buffer | string): string => createHash('sha256').update(bytes).digest('hex')

const call = (
  host: PodHost,
  method: 'GET' | 'POST' | 'DELETE',
  place: string,
  body?: object,
): Promise<Reply> =>
  host.agent.tenant(host.token, {
    method,
    path: `/v1/tenants/acme/${place}`,
    ...(body === undefined ? {} : { body }),
  })
const store = (host: PodHost, kind: string, name: string, content: string): Promise<Reply> =>
  call(host, 'POST', `${kind}s`, { name, content: base64(content) })
/** Files below a directory that have one of the texts in them. */
function holding(directory: string, texts: readonly string[]): readonly string[] {
  const names = readdirSync(directory, { recursive: true, encoding: 'utf8' })
  return names
    .map((name) => path.join(directory, name))
    .filter((file) => statSync(file, { throwIfNoEntry: false })?.isFile() === true)
    .filter((file) => texts.some((text) => readFileSync(file).includes(text)))
}

suite('agent/stored-files', () => {
  test('shows a config to its tenant, a secret to nobody, and neither to another tenant', async (t) => {
    const host = await podHost(t)
    const other = await host.admit('bolt')
    const stored = await store(host, 'secret', 'key', 'hush')
    assert.equal(stored.status, 201, stored.text)
    assert.equal((await store(host, 'config', 'key', 'open')).status, 201)
    const config = await call(host, 'GET', 'configs/key')
    assert.equal(member(config.json, 'content'), base64('open'))
    const secret = await call(host, 'GET', 'secrets/key')
    const shown = ['name', 'version', 'size', 'created', 'by']
    assert.deepEqual(Object.keys(Object(secret.json)), shown)
    assert.equal(member(secret.json, 'version'), member(stored.json, 'version'))
    for (const kind of ['configs', 'secrets']) {
      for (const place of [kind, `${kind}/key`]) {
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        const strange = await host.agent.tenant(other, { path: `/v1/tenants/acme/${place}` })
        assert.equal(strange.status, 404, place)
      }
      // oxlint-disable-next-line no-await-in-loop
      const own = await host.agent.tenant(other, { path: `/v1/tenants/bolt/${kind}/key` })
      assert.equal(own.status, 404)
    }
    const twice = await store(host, 'secret', 'key', 'other')
    assert.equal(member(twice.json, 'code'), 'FILE_EXISTS', twice.text)
    const suspended = {
      method: 'PATCH',
      path: '/v1/tenants/acme',
      body: { state: 'suspended' },
    } as const
    assert.equal((await host.agent.operator(suspended)).status, 200)
    const refused = await call(host, 'GET', 'configs/key')
    assert.equal(member(refused.json, 'code'), 'TENANT_SUSPENDED', refused.text)
    assert.equal((await ofType(host, 'file.refused')).length, 1)
    assert.equal((await call(host, 'DELETE', 'configs/key')).status, 204)
  })

  test('refuses what is too large, no base64 or no name, and says nothing of the content', async (t) => {
    const host = await podHost(t)
    const most = 'x'.repeat(2 ** 19)
    assert.equal((await store(host, 'config', 'most', most)).status, 201)
    const large = await store(host, 'config', 'large', `${most}x`)
    assert.equal(member(large.json, 'code'), 'BODY_TOO_LARGE', large.text)
    for (const body of [
      { name: 'a', content: 'HUSH!' },
      { name: '../a', content: 'HUSH' },
      { name: '', content: 'HUSH' },
      { name: 'a', content: 'HUSH', mode: 'HUSH' },
      { name: 'a', content: ['HUSH'] },
    ]) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const reply = await call(host, 'POST', 'secrets', body)
      assert.equal(reply.status, 400, JSON.stringify(body))
      assert.ok(!reply.text.includes('HUSH'), reply.text)
    }
  })

  test('gives a pod its files in a sealed descriptor, and their versions to the record', async (t) => {
    const host = await podHost(t)
    const stored = await store(host, 'secret', 'key', 'hush')
    await store(host, 'config', 'app.conf', 'open')
    const files = [
      { secret: 'key', uid: 33 },
      { config: 'app.conf', target: '/etc/app.conf' },
      { content: base64('inline'), target: '/a', mode: '755' },
    ]
    const launched = await host.launch('acme', undefined, { files })
    assert.equal(launched.status, 201, launched.text)
    const { spec, record, files: sealed } = await host.launches(1)
    assert.deepEqual(member(spec, 'apps', '0', 'mounts'), [
      { gid: 0, kind: 'file', mode: 0o755, path: '/a', size: 6, uid: 0 },
      { gid: 0, kind: 'file', mode: 0o444, path: '/etc/app.conf', size: 4, uid: 0 },
      { gid: 0, kind: 'file', mode: 0o400, path: '/run/secrets/key', size: 4, uid: 33 },
    ])
    assert.ok(sealed !== null)
    assert.equal(sealed.subarray(SALT_BYTES).toString('utf8'), 'inlineopenhush')
    const descriptors = member(spec, 'descriptors')
    assert.ok(Array.isArray(descriptors))
    assert.deepEqual(descriptors.at(-1), {
      access: 'read',
      digest: `sha256:${sha256(sealed)}`,
      role: 'files',
      size: sealed.length,
    })
    const [first] = member(record, 'files') as unknown[]
    const version = member(stored.json, 'version')
    assert.deepEqual(first, { kind: 'secret', name: 'key', version })
    await host.launch('acme', undefined, { files })
    const again = await host.launches(2)
    assert.notDeepEqual(again.files?.subarray(0, SALT_BYTES), sealed.subarray(0, SALT_BYTES))
  })

  test('leaves no trace of a secret: no file, no log, no record, no answer has it or a digest of it', async (t) => {
    const host = await podHost(t)
    const secret = randomBytes(18).toString('base64url')
    const replies = [await store(host, 'secret', 'key', secret)]
    const files = [{ secret: 'key' }]
    const launched = await host.launch('acme', undefined, { files, restart: 'always' })
    replies.push(launched, await call(host, 'GET', 'secrets/key'))
    const pod = String(member(launched.json, 'id'))
    replies.push(await call(host, 'GET', `pods/${pod}`))
    replies.push(await call(host, 'POST', 'secrets', { name: 'key', content: base64(secret) }))
    replies.push(await call(host, 'DELETE', 'secrets/key'))
    replies.push(await host.launch('acme', undefined, { files }))
    assert.equal(member(replies.at(-1)?.json, 'code'), 'SECRET_NOT_FOUND')
    const traces = [secret, base64(secret), sha256(secret), sha256(base64(secret))]
    for (const { text } of replies) assert.ok(!traces.some((trace) => text.includes(trace)), text)
    const { spec, record } = await host.launches(1)
    const papers = JSON.stringify([spec, record, await records(host.agent)])
    assert.ok(!traces.some((trace) => papers.includes(trace)))
    assert.deepEqual(holding(path.dirname(host.agent.stateDir), traces), [])
    const kinds = (await records(host.agent)).map((one) => String(member(one, 'type')))
    const kept = kinds.filter((type) => type.startsWith('file.'))
    assert.deepEqual(kept, ['file.stored', 'file.removed'])
  })

  test('starts a pod again with what is stored then, and not while that is gone', async (t) => {
    const host = await podHost(t)
    await store(host, 'config', 'app', 'first')
    const body = { restart: 'always', files: [{ config: 'app' }] }
    const pod = String(member((await host.launch('acme', undefined, body)).json, 'id'))
    const crash = async (launch: string): Promise<void> => {
      host.end(launch, exitCode(1))
      await host.until('its back-off', async () =>
        member(await host.inspect(pod), 'state') === 'restarting' ? true : null,
      )
      host.pass(60_000)
    }
    await host.launches(1)
    await call(host, 'DELETE', 'configs/app')
    await store(host, 'config', 'app', 'second')
    await crash(pod)
    const second = await host.launches(2)
    assert.equal(second.files?.subarray(SALT_BYTES).toString('utf8'), 'second')
    await call(host, 'DELETE', 'configs/app')
    await crash(second.pod)
    const refused = await host.until('a refusal', async () => {
      const found = await ofType(host, 'launch.refused')
      return found[0] ?? null
    })
    assert.equal(member(refused, 'refusal', 'code'), 'CONFIG_NOT_FOUND')
    // Renewed by removing it first: what waits in between comes up with the new one.
    await store(host, 'config', 'app', 'third')
    host.pass(600_000)
    const third = await host.launches(3)
    assert.equal(third.files?.subarray(SALT_BYTES).toString('utf8'), 'third')
  })
})
