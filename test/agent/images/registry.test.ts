/** Credentials, redirects and retries: what a registry can make the agent do, and what not. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { OCI_MANIFEST } from '../../../agent/images/descriptor.ts'
import { ownOriginsOf } from '../../../agent/images/registry/client.ts'
import { putImage, REPOSITORY } from './support/image.ts'
import { TestRegistry, USER } from './support/registry.ts'
import { imagesFor, open } from './support/session.ts'

const credentials = { kind: 'password', ...USER } as const

suite('agent/images/registry', () => {
  for (const auth of ['basic', 'token'] as const) {
    test(`signs in with ${auth} authentication`, async (context) => {
      const registry = await TestRegistry.start(context, { auth })
      const { digest } = putImage(registry)
      const session = await open(context, registry, { credentials })
      assert.equal(session.image.resolved.digest, digest)
      await session.pullLayers()
    })

    test(`is refused by ${auth} authentication without credentials or with wrong ones`, async (context) => {
      const registry = await TestRegistry.start(context, { auth })
      putImage(registry)
      const wrong = { kind: 'password', username: 'acme', password: 'wrong' } as const
      for (const given of [null, wrong]) {
        await assert.rejects(open(context, registry, { credentials: given }), {
          code: 'REGISTRY_REFUSED',
        })
      }
    })
  }

  test('never sends credentials to a token service that the provider does not list', async (context) => {
    const registry = await TestRegistry.start(context)
    const thief = await TestRegistry.start(context)
    putImage(registry)
    const challenge = `Bearer realm="http://${thief.host}/token",service="x"`
    registry.intercept = () => ({ status: 401, headers: { 'www-authenticate': challenge } })
    await assert.rejects(open(context, registry, { credentials }), { code: 'REGISTRY_REFUSED' })
    assert.deepEqual(thief.seen, [])
  })

  test('knows the token service of Docker Hub as its own, and of no other registry', () => {
    const own = ownOriginsOf('docker.io', new URL('https://registry-1.docker.io/v2/x/y'))
    assert.deepEqual(own, ['https://registry-1.docker.io', 'https://auth.docker.io'])
    const other = ownOriginsOf('docker.io.example', new URL('https://docker.io.example/v2/x'))
    assert.deepEqual(other, ['https://docker.io.example'])
  })

  for (const scheme of ['Basic', 'Bearer'] as const) {
    test(`answers no ${scheme} challenge of a place that a redirect led to`, async (context) => {
      const registry = await TestRegistry.start(context)
      const thief = await TestRegistry.start(context)
      const images = imagesFor(context, [registry.host])
      registry.intercept = ({ url }) => ({
        status: 307,
        headers: { location: `http://${thief.host}${url}` },
      })
      const parameters = scheme === 'Basic' ? 'realm="x"' : `realm="http://${thief.host}/token"`
      thief.intercept = ({ url }) =>
        url.startsWith('/token')
          ? { status: 200, body: '{"token":"x"}' }
          : { status: 401, headers: { 'www-authenticate': `${scheme} ${parameters}` } }
      // Not listed by the provider, the second host is not even connected to; listed, it is, bare.
      await assert.rejects(open(context, registry, { images, credentials }), {
        code: 'REGISTRY_ADDRESS_FORBIDDEN',
      })
      const listed = imagesFor(context, [registry.host, thief.host])
      await assert.rejects(open(context, registry, { images: listed, credentials }), {
        code: 'REGISTRY_REFUSED',
      })
      assert.ok(thief.seen.length > 0)
      const everything = [...registry.seen, ...thief.seen]
      assert.ok(everything.every(({ authorization }) => authorization === null))
    })
  }

  test('a layer of one tenant serves no other that only knows its digest', async (context) => {
    const secret = await TestRegistry.start(context, { auth: 'basic' })
    const shared = await TestRegistry.start(context)
    const { manifest, layers } = putImage(secret)
    const images = imagesFor(context, [secret.host, shared.host])
    const owner = await open(context, secret, { images, credentials })
    await owner.pullLayers()
    await owner.buildRootfs(true)
    // The same documents in a repository of the other tenant's own, without the layer.
    shared.addManifest(REPOSITORY, manifest, OCI_MANIFEST, 'latest')
    for (const [digest, bytes] of secret.blobs) {
      if (digest !== layers[0]?.digest) shared.blobs.set(digest, bytes)
    }
    const other = await open(context, shared, { images, tenant: 'other' })
    await assert.rejects(other.pullLayers(), { code: 'IMAGE_UNKNOWN' })
    await assert.rejects(other.buildRootfs(true), { code: 'IMAGE_BUILD_FAILED' })
    // Nor the owner's next launch without credentials: the registry is asked each time.
    await assert.rejects(open(context, secret, { images }), { code: 'REGISTRY_REFUSED' })
  })

  test('drops credentials when a redirect leaves the registry', async (context) => {
    const registry = await TestRegistry.start(context, { auth: 'basic' })
    const storage = await TestRegistry.start(context)
    const put = putImage(registry)
    for (const [digest, bytes] of registry.blobs) storage.blobs.set(digest, bytes)
    registry.intercept = ({ url, authorization }) =>
      url.includes('/blobs/') && authorization !== null
        ? { status: 307, headers: { location: `http://${storage.host}${url}` } }
        : null
    const images = imagesFor(context, [registry.host, storage.host])
    const session = await open(context, registry, { images, credentials })
    await session.pullLayers()
    assert.equal(session.image.resolved.digest, put.digest)
    assert.deepEqual(
      new Set(storage.seen.map(({ authorization }) => authorization)),
      new Set([null]),
    )
  })

  for (const location of [
    'http://169.254.169.254/latest/meta-data/',
    'https://169.254.169.254/latest/meta-data/',
    'http://[::ffff:169.254.169.254]/',
    'http://127.0.0.1:1/v2/',
    'http://localhost:1/v2/',
    'file:///etc/passwd',
  ]) {
    test(`does not follow a redirect to ${location}`, async (context) => {
      const registry = await TestRegistry.start(context)
      registry.intercept = () => ({ status: 307, headers: { location } })
      await assert.rejects(open(context, registry), { code: 'REGISTRY_ADDRESS_FORBIDDEN' })
    })
  }

  test('checks what a name resolves to, not only how it looks', async (context) => {
    const registry = await TestRegistry.start(context)
    const port = registry.host.split(':')[1]
    const images = imagesFor(context, [])
    const reference = `localhost:${port}/${REPOSITORY}`
    // HTTPS, as nobody listed it; the look-up refuses before any byte of a handshake.
    await assert.rejects(open(context, registry, { images, reference }), {
      code: 'REGISTRY_ADDRESS_FORBIDDEN',
    })
    assert.deepEqual(registry.seen, [])
  })

  test('gives up on redirects without end', async (context) => {
    const registry = await TestRegistry.start(context)
    registry.intercept = ({ url }) => ({ status: 302, headers: { location: `${url}x` } })
    await assert.rejects(open(context, registry), { code: 'REGISTRY_REFUSED' })
    assert.ok(registry.seen.length < 10)
  })

  test('tries again when the registry is busy, and as late as it asks', async (context) => {
    const registry = await TestRegistry.start(context)
    const { digest } = putImage(registry)
    let failures = 2
    registry.intercept = () => {
      failures -= 1
      return failures >= 0 ? { status: 503, headers: { 'retry-after': '0' } } : null
    }
    assert.equal((await open(context, registry)).image.resolved.digest, digest)
  })

  test('says that the registry is unavailable after some tries', async (context) => {
    const registry = await TestRegistry.start(context)
    registry.intercept = () => ({ status: 500, headers: { 'retry-after': '0' } })
    await assert.rejects(open(context, registry), { code: 'REGISTRY_UNAVAILABLE' })
    assert.equal(registry.seen.length, 4)
  })
})
