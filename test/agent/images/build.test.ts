/** From pulled layers to a root image: by the real worker in a process of its own, and by liars. */
import assert from 'node:assert/strict'
import {
  closeSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { createImages, type RunWorker } from '../../../agent/images/index.ts'
import { canonicalJson, parseCanonical } from '../../../policy/canonical.ts'
import { readErofs } from '../../native/workers/rootfs/erofs-reader.ts'
import { archive, directory, entry, file, symlink } from '../../native/workers/rootfs/tar-writer.ts'
import { defaultLayer, putImage } from './support/image.ts'
import { TestRegistry } from './support/registry.ts'
import { imagesFor, open, temporaryDirectory } from './support/session.ts'
import { runWorkerInChild } from './support/worker.ts'

suite('agent/images/build', () => {
  test('builds the root image of an image, once', async (context) => {
    const registry = await TestRegistry.start(context)
    const layers = [archive(file('a', 'one'), file('b', 'two')), archive(file('a', 'three'))]
    putImage(registry, { layers })
    let runs = 0
    const images = imagesFor(context, [registry.host], (work) => {
      runs += 1
      return runWorkerInChild(work)
    })
    const session = await open(context, registry, { images })
    await session.pullLayers()
    const [rootfs, same] = await Promise.all([session.buildRootfs(true), session.buildRootfs(true)])
    const tree = readErofs(readFileSync(rootfs.path))
    assert.deepEqual([...tree.keys()], ['', 'a', 'b'])
    assert.equal(tree.get('a')?.size, 5)
    assert.equal(readFileSync(rootfs.path).length, rootfs.size)
    assert.deepEqual(same, rootfs)
    assert.deepEqual(await session.buildRootfs(true), rootfs)
    assert.equal(runs, 1)
    const without = await session.buildRootfs(false)
    assert.notEqual(without.rootfsKey, rootfs.rootfsKey)
  })

  test('gives the same root on another host', async (context) => {
    const registry = await TestRegistry.start(context)
    putImage(registry)
    const roots: unknown[] = []
    for (const host of ['first', 'second']) {
      const session = await open(context, registry, { images: imagesFor(context, [registry.host]) })
      await session.pullLayers()
      roots.push((await session.buildRootfs(true)).verity, host.length > 0)
    }
    assert.deepEqual(roots[0], roots[2])
  })

  test('does not pull what the tenant pulled before, and pulls for each tenant', async (context) => {
    const registry = await TestRegistry.start(context)
    const { layers } = putImage(registry)
    const images = imagesFor(context, [registry.host])
    const pulls = (): number =>
      registry.seen.filter(({ url }) => url.endsWith(layers[0]?.digest ?? '')).length
    for (const [tenant, expected] of [
      ['acme', 1],
      ['acme', 1],
      ['other', 2],
    ] as const) {
      const session = await open(context, registry, { images, tenant })
      await session.pullLayers()
      await session.buildRootfs(true)
      assert.equal(pulls(), expected)
    }
  })

  test('gives a tenant nothing of another that it did not pull itself', async (context) => {
    const registry = await TestRegistry.start(context)
    putImage(registry)
    const images = imagesFor(context, [registry.host])
    const owner = await open(context, registry, { images })
    await owner.pullLayers()
    await owner.buildRootfs(true)
    const thief = await open(context, registry, { images, tenant: 'thief' })
    await assert.rejects(thief.buildRootfs(true), { code: 'IMAGE_BUILD_FAILED' })
  })

  test('refuses a layer that was tampered with in the registry, and keeps nothing of it', async (context) => {
    const registry = await TestRegistry.start(context)
    const { layers } = putImage(registry)
    const { digest, bytes } = layers[0] ?? assert.fail()
    const changed = Buffer.from(bytes)
    changed[20] = (changed[20] ?? 0) ^ 1
    registry.blobs.set(digest, changed)
    const root = temporaryDirectory(context)
    const images = createImages({
      directory: root,
      allowances: [{ host: registry.host, insecure: true }],
      runWorker: runWorkerInChild,
    })
    const session = await open(context, registry, { images })
    await assert.rejects(session.pullLayers(), { code: 'IMAGE_DIGEST_MISMATCH' })
    assert.deepEqual(readdirSync(path.join(root, 'blobs', 'acme')), [])
    registry.blobs.set(digest, bytes.subarray(0, 10))
    await assert.rejects(session.pullLayers(), { code: 'IMAGE_DIGEST_MISMATCH' })
    registry.blobs.set(digest, Buffer.concat([bytes, bytes]))
    await assert.rejects(session.pullLayers(), { code: 'IMAGE_DIGEST_MISMATCH' })
  })

  test('notices a layer that changed on disk after the pull, and pulls it again', async (context) => {
    const registry = await TestRegistry.start(context)
    const { layers } = putImage(registry)
    const root = temporaryDirectory(context)
    const images = createImages({
      directory: root,
      allowances: [{ host: registry.host, insecure: true }],
      runWorker: runWorkerInChild,
    })
    const session = await open(context, registry, { images })
    await session.pullLayers()
    const { digest = '', bytes } = layers[0] ?? {}
    const place = path.join(root, 'blobs', 'acme', digest.replace(':', '-'))
    writeFileSync(place, Buffer.alloc(bytes?.length ?? 0))
    await assert.rejects(session.buildRootfs(true), { code: 'IMAGE_DIGEST_MISMATCH' })
    await session.pullLayers()
    await session.buildRootfs(true)
  })

  test('hashes layers itself: a worker that read other bytes proves nothing', async (context) => {
    const registry = await TestRegistry.start(context)
    const { layers } = putImage(registry)
    const { digest = '', bytes = Buffer.alloc(0) } = layers[0] ?? {}
    const root = temporaryDirectory(context)
    const place = path.join(root, 'blobs', 'acme', digest.replace(':', '-'))
    const good = path.join(root, 'good')
    writeFileSync(good, bytes)
    const images = createImages({
      directory: root,
      allowances: [{ host: registry.host, insecure: true }],
      runWorker: async (work) => {
        const fd = openSync(good, 'r')
        const fds = [work.fds[0] ?? -1, fd]
        return runWorkerInChild({ ...work, fds }).finally(() => closeSync(fd))
      },
    })
    const session = await open(context, registry, { images })
    await session.pullLayers()
    writeFileSync(place, Buffer.alloc(bytes.length))
    await assert.rejects(session.buildRootfs(true), { code: 'IMAGE_DIGEST_MISMATCH' })
  })

  const hostile: Readonly<Record<string, readonly [string, Buffer]>> = {
    'path traversal': ['IMAGE_LAYER_INVALID', archive(file('../../etc/cron.d/evil', 'x'))],
    'an absolute path': ['IMAGE_LAYER_INVALID', archive(file('/etc/passwd', 'x'))],
    'an escape through a link': [
      'IMAGE_LAYER_INVALID',
      archive(symlink('out', '/etc'), file('out/passwd', 'x')),
    ],
    'a name twice': ['IMAGE_LAYER_INVALID', archive(file('a', '1'), file('a', '2'))],
    'more than 100:1': ['IMAGE_TOO_LARGE', archive(file('zeros', Buffer.alloc(20 << 20)))],
  }
  for (const [what, [code, layer]] of Object.entries(hostile)) {
    test(`refuses a layer with ${what}`, async (context) => {
      const registry = await TestRegistry.start(context)
      putImage(registry, { layers: [defaultLayer(), layer] })
      const session = await open(context, registry)
      await session.pullLayers()
      await assert.rejects(session.buildRootfs(true), { code })
    })
  }

  test('keeps a device node at level vm and refuses it below', async (context) => {
    const registry = await TestRegistry.start(context)
    putImage(registry, { layers: [archive(entry({ name: 'mem', type: '3', device: [1, 1] }))] })
    const session = await open(context, registry)
    await session.pullLayers()
    await session.buildRootfs(true)
    await assert.rejects(session.buildRootfs(false), { code: 'IMAGE_LAYER_INVALID' })
  })

  /** A worker that does its work and then changes what it wrote, or what it says. */
  const lying =
    (lie: (answer: Record<string, unknown>, outputFd: number) => void): RunWorker =>
    async (work) => {
      const answer = parseCanonical(await runWorkerInChild(work))
      const members = { ...(answer as Record<string, unknown>) }
      lie(members, work.fds[0] ?? -1)
      return Buffer.from(canonicalJson(members as Parameters<typeof canonicalJson>[0]))
    }
  const change = (fd: number, position: number): void => {
    const place = openSync(`/proc/self/fd/${fd}`, 'r+')
    const byte = Buffer.alloc(1)
    readSync(place, byte, 0, 1, position)
    writeSync(place, Buffer.from([(byte[0] ?? 0) ^ 1]), 0, 1, position)
    closeSync(place)
  }
  const liars: Readonly<Record<string, RunWorker>> = {
    'names another root': lying((answer) => {
      answer['root'] = 'f'.repeat(64)
    }),
    'changes a byte of the file system': lying((_answer, fd) => change(fd, 4096)),
    'changes a byte of the tree': lying(({ data_blocks }, fd) =>
      change(fd, Number(data_blocks) * 4096),
    ),
    'appends a byte': lying(({ size }, fd) => change(fd, Number(size))),
    'counts fewer blocks': lying((answer) => {
      answer['data_blocks'] = Number(answer['data_blocks']) - 1
    }),
    'counts more blocks than there are': lying((answer) => {
      answer['data_blocks'] = 2 ** 31
    }),
    'answers no JSON': () => Promise.resolve(Buffer.from('{')),
    'answers nothing': () => Promise.resolve(Buffer.alloc(0)),
    'fails for a reason nobody knows': lying((answer) => {
      answer['ok'] = false
      answer['code'] = 'NO_SUCH_CODE'
      answer['message'] = '\u001b[2J'
    }),
  }
  for (const [what, runWorker] of Object.entries(liars)) {
    test(`does not believe a worker that ${what}`, async (context) => {
      const registry = await TestRegistry.start(context)
      putImage(registry, { layers: [archive(directory('d'), file('d/f', 'x'.repeat(9000)))] })
      const images = imagesFor(context, [registry.host], runWorker)
      const session = await open(context, registry, { images })
      await session.pullLayers()
      await assert.rejects(session.buildRootfs(true), { code: 'IMAGE_BUILD_FAILED' })
    })
  }
})
