/** References resolved against registries that answer right, wrong, and differently each time. */
import assert from 'node:assert/strict'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { suite, test } from 'node:test'
import { OCI_INDEX, OCI_MANIFEST } from '../../../agent/images/descriptor.ts'
import { defaultLayer, json, putImage, REPOSITORY } from './support/image.ts'
import { digestOf, type Seen, TestRegistry } from './support/registry.ts'
import { imagesFor, open } from './support/session.ts'

const isManifest = ({ url }: Seen): boolean => url.includes('/manifests/')

suite('agent/images/resolve', () => {
  test('resolves a tag to digest, layers and process', async (context) => {
    const registry = await TestRegistry.start(context)
    const put = putImage(registry)
    const { image } = await open(context, registry)
    assert.deepEqual(image.resolved, {
      registry: registry.host,
      repository: REPOSITORY,
      digest: put.digest,
    })
    assert.deepEqual(
      image.layers.map(({ digest, diffId, packing }) => [digest, diffId, packing]),
      [[put.layers[0]?.digest, digestOf(defaultLayer()), 'gzip']],
    )
    assert.deepEqual(image.process, {
      entrypoint: ['/bin/app'],
      cmd: ['--serve'],
      env: ['PATH=/bin'],
      workingDir: '/srv',
      user: '1000:1000',
      stopSignal: 'SIGINT',
      healthcheck: null,
      volumes: [],
    })
  })

  test('reads a configuration that says nothing of a process', async (context) => {
    const registry = await TestRegistry.start(context)
    putImage(registry, { config: { config: { Cmd: null } } })
    const { image } = await open(context, registry)
    assert.deepEqual(image.process, {
      entrypoint: [],
      cmd: [],
      env: [],
      workingDir: '',
      user: '',
      stopSignal: null,
      healthcheck: null,
      volumes: [],
    })
  })

  test('chooses linux/amd64 from an index, and names the index', async (context) => {
    const registry = await TestRegistry.start(context)
    const put = putImage(registry, { index: true })
    const { image } = await open(context, registry)
    assert.equal(image.resolved.digest, put.digest)
    assert.equal(image.manifest.digest, put.manifestDigest)
    assert.notEqual(put.digest, put.manifestDigest)
  })

  test('resolves by digest', async (context) => {
    const registry = await TestRegistry.start(context)
    const { digest } = putImage(registry)
    const reference = `${registry.host}/${REPOSITORY}@${digest}`
    assert.equal((await open(context, registry, { reference })).image.resolved.digest, digest)
  })

  test('says that there is no such image', async (context) => {
    const registry = await TestRegistry.start(context)
    await assert.rejects(open(context, registry), { code: 'IMAGE_UNKNOWN' })
  })

  test('asks for the manifest once: a second, different answer is never seen', async (context) => {
    const registry = await TestRegistry.start(context)
    const first = putImage(registry, { layers: [defaultLayer('first')] })
    let answers = 0
    registry.intercept = (seen) => {
      answers += isManifest(seen) ? 1 : 0
      if (answers === 2) putImage(registry, { layers: [defaultLayer('second')] })
      return null
    }
    const session = await open(context, registry)
    await session.pullLayers()
    assert.equal(session.image.resolved.digest, first.digest)
    assert.equal(answers, 1)
  })

  test('refuses another manifest than the one asked for by digest', async (context) => {
    const registry = await TestRegistry.start(context)
    const { digest } = putImage(registry)
    const other = putImage(registry, { layers: [defaultLayer('other')], tag: 'other' })
    registry.intercept = (seen) =>
      seen.url.endsWith(digest)
        ? { status: 200, headers: { 'content-type': OCI_MANIFEST }, body: other.manifest }
        : null
    const reference = `${registry.host}/${REPOSITORY}@${digest}`
    await assert.rejects(open(context, registry, { reference }), { code: 'IMAGE_DIGEST_MISMATCH' })
  })

  test('refuses a child of an index that is not what the index says', async (context) => {
    const registry = await TestRegistry.start(context)
    const { manifestDigest } = putImage(registry, { index: true })
    registry.intercept = (seen) =>
      seen.url.endsWith(manifestDigest)
        ? { status: 200, headers: { 'content-type': OCI_MANIFEST }, body: '{}' }
        : null
    await assert.rejects(open(context, registry), { code: 'IMAGE_DIGEST_MISMATCH' })
  })

  test('refuses a child of an index that has another size than the index says', async (context) => {
    const registry = await TestRegistry.start(context)
    const { manifest, manifestDigest } = putImage(registry)
    const entry = {
      mediaType: OCI_MANIFEST,
      digest: manifestDigest,
      size: manifest.length + 1,
      platform: { os: 'linux', architecture: 'amd64' },
    }
    const index = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [entry] })
    registry.addManifest(REPOSITORY, index, OCI_INDEX, 'latest')
    await assert.rejects(open(context, registry), { code: 'IMAGE_DIGEST_MISMATCH' })
  })

  test('refuses a manifest that contradicts Docker-Content-Digest', async (context) => {
    const registry = await TestRegistry.start(context)
    const { manifest } = putImage(registry)
    const headers = {
      'content-type': OCI_MANIFEST,
      'docker-content-digest': digestOf('something else'),
    }
    registry.intercept = (seen) =>
      isManifest(seen) ? { status: 200, headers, body: manifest } : null
    await assert.rejects(open(context, registry), { code: 'IMAGE_DIGEST_MISMATCH' })
  })

  test('refuses a configuration with another digest', async (context) => {
    const registry = await TestRegistry.start(context)
    putImage(registry)
    registry.intercept = (seen) =>
      seen.url.includes('/blobs/') ? { status: 200, body: 'not the configuration' } : null
    await assert.rejects(open(context, registry), { code: 'IMAGE_DIGEST_MISMATCH' })
  })

  for (const announced of [true, false]) {
    test(`stops at 4 MiB of a 10 MB manifest, ${announced ? '' : 'not '}announced`, async (context) => {
      let sent = 0
      const server = createServer((_request, response) => {
        const chunk = Buffer.alloc(100_000, ' ')
        response.setHeader('content-type', OCI_MANIFEST)
        if (announced) response.setHeader('content-length', 10_000_000)
        const send = (): void => {
          while (sent < 10_000_000 && response.writable) {
            sent += chunk.length
            if (!response.write(chunk)) return void response.once('drain', send)
          }
          response.end()
        }
        send()
      })
      await new Promise<void>((resolve) => {
        server.listen(0, '127.0.0.1', resolve)
      })
      context.after(() => {
        server.closeAllConnections()
        server.close()
      })
      const host = `127.0.0.1:${(server.address() as AddressInfo).port}`
      const images = imagesFor(context, [host])
      const registry = { host } as TestRegistry
      await assert.rejects(open(context, registry, { images }), { code: 'IMAGE_TOO_LARGE' })
      assert.ok(sent < 10_000_000)
    })
  }

  test('refuses the ninth image of a tenant at once, and no other tenant', async (context) => {
    const registry = await TestRegistry.start(context)
    putImage(registry)
    const images = imagesFor(context, [registry.host])
    const sessions = await Promise.all(
      Array.from({ length: 8 }, () => open(context, registry, { images })),
    )
    await assert.rejects(open(context, registry, { images }), { code: 'IMAGE_BUSY' })
    await open(context, registry, { images, tenant: 'other' })
    await sessions[0]?.close()
    await open(context, registry, { images })
  })

  test('parses a manifest of 4 MiB without holding up the event loop', async (context) => {
    const registry = await TestRegistry.start(context)
    const annotations = Object.fromEntries(
      Array.from({ length: 60_000 }, (_, index) => [`key-${index}`, 'v'.repeat(40)]),
    )
    putImage(registry, { manifest: { annotations } })
    let longest = 0
    let last = performance.now()
    const timer = setInterval(() => {
      longest = Math.max(longest, performance.now() - last)
      last = performance.now()
    }, 5)
    context.after(() => clearInterval(timer))
    const own = process.cpuUsage()
    await open(context, registry)
    const { user } = process.cpuUsage(own)
    clearInterval(timer)
    assert.ok(longest * 1000 < user, `${longest} ms in one piece of ${user / 1000} ms`)
  })

  test('refuses an index in the place of a manifest', async (context) => {
    const registry = await TestRegistry.start(context)
    const nested = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [] })
    registry.addManifest(REPOSITORY, nested, OCI_INDEX)
    const entry = {
      mediaType: OCI_INDEX,
      digest: digestOf(nested),
      size: nested.length,
      platform: { os: 'linux', architecture: 'amd64' },
    }
    const index = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [entry] })
    registry.addManifest(REPOSITORY, index, OCI_INDEX, 'latest')
    await assert.rejects(open(context, registry), { code: 'IMAGE_MANIFEST_INVALID' })
  })
})

suite('agent/images/resolve: health', () => {
  test('reads a HEALTHCHECK as Docker writes it', async (context) => {
    const registry = await TestRegistry.start(context)
    const Healthcheck = { Test: ['CMD-SHELL', 'true'], Interval: 5_000_000_000, Retries: 2 }
    putImage(registry, { config: { config: { Healthcheck, Shell: ['/bin/bash', '-c'] } } })
    const { image } = await open(context, registry)
    assert.deepEqual(image.process.healthcheck, {
      test: ['CMD-SHELL', 'true'],
      shell: ['/bin/bash', '-c'],
      times: {
        intervalMs: 5_000_000_000,
        timeoutMs: 0,
        startPeriodMs: 0,
        startIntervalMs: 0,
        retries: 2,
      },
    })
  })
})
