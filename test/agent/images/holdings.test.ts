/**
 * What one tenant's images may take on the disk: caches, root images that pods have open, deleted or
 * not, and what is under way. What the tenant does not use gives way; then it is refused.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { createImages, type ImageSession, type OpenRootImage } from '../../../agent/images/index.ts'
import { IMAGES_BYTES_MAX, IMAGES_FILES_MAX } from '../../../agent/images/limits.ts'
import { parseTenantId } from '../../../policy/index.ts'
import { archive, file } from '../../native/workers/rootfs/tar-writer.ts'
import { putImage, REPOSITORY } from './support/image.ts'
import { TestRegistry } from './support/registry.ts'
import { open, temporaryDirectory } from './support/session.ts'
import { runWorkerInChild } from './support/worker.ts'

const MIB = 1 << 20
const ACME = parseTenantId('acme')
const REFUSED = { code: 'IMAGE_QUOTA_EXCEEDED' }

interface Host {
  readonly registry: TestRegistry
  /** What pods have open. */
  open: () => readonly OpenRootImage[] | Promise<readonly OpenRootImage[]>
  /** An image of layers of so many MiB, which cannot be packed; 0 is a layer of some bytes. */
  put(tag: string, ...mib: readonly number[]): void
  session(tag: string, tenant?: string): Promise<ImageSession>
  /** In a session of its own. */
  pull(tag: string, tenant?: string): Promise<void>
  folder(kind: 'blobs' | 'rootfs', tenant?: string): string
  /** Tags of images of one layer that the tenant has pulled. */
  has(tenant?: string): readonly string[]
}

/** A root image that pods of acme have open and that is deleted. */
const deleted = (bytes: number, key = 'a'.repeat(64)): OpenRootImage => ({
  tenant: ACME,
  key,
  bytes,
})
const leaving = (bytes: number) => (): readonly OpenRootImage[] => [
  deleted(IMAGES_BYTES_MAX - bytes),
]

async function hostFor(t: TestContext): Promise<Host> {
  const registry = await TestRegistry.start(t)
  const directory = temporaryDirectory(t)
  const tags = new Map<string, string>()
  const images = createImages({
    directory,
    allowances: [{ host: registry.host, insecure: true }],
    runWorker: runWorkerInChild,
    openRootImages: async () => host.open(),
  })
  const folder = (kind: 'blobs' | 'rootfs', tenant = 'acme'): string =>
    path.join(directory, kind, tenant)
  const session = (tag: string, tenant = 'acme'): Promise<ImageSession> =>
    open(t, registry, { images, tenant, reference: `${registry.host}/${REPOSITORY}:${tag}` })
  const host: Host = {
    registry,
    open: () => [],
    put: (tag, ...mib) => {
      const layers = mib.map((one) => archive(file('data', randomBytes(one * MIB + 16))))
      const [first] = putImage(registry, { tag, layers }).layers
      tags.set(first?.digest.replace(':', '-') ?? '', tag)
    },
    session,
    pull: async (tag, tenant) => {
      const own = await session(tag, tenant)
      await own.pullLayers().finally(() => own.close())
    },
    folder,
    has: (tenant) =>
      readdirSync(folder('blobs', tenant))
        .map((name) => tags.get(name) ?? name)
        .toSorted(),
  }
  return host
}

suite('agent/images/what a tenant may have on the disk', () => {
  test('refuses a pull beyond it before a byte comes, to that tenant, while its pods run', async (t) => {
    const host = await hostFor(t)
    host.put('x', 4)
    host.open = leaving(2 * MIB)
    const session = await host.session('x')
    const layerRequests = (): number =>
      host.registry.seen.filter(({ url }) => url.includes('/blobs/')).length
    const before = layerRequests()
    await assert.rejects(session.pullLayers(), {
      ...REFUSED,
      message:
        /needs 5 MiB more in 1 files.* 32 GiB in 4096 files. Stop pods or use smaller images/u,
    })
    assert.equal(layerRequests(), before)
    await host.pull('x', 'other')
    host.open = () => []
    await session.pullLayers()
  })

  test('refuses a build in the same way, and leaves nothing of it', async (t) => {
    const host = await hostFor(t)
    host.put('x', 1)
    host.open = leaving(16 * MIB)
    const session = await host.session('x')
    await session.pullLayers()
    await assert.rejects(session.buildRootfs(true), REFUSED)
    assert.deepEqual(readdirSync(host.folder('rootfs')), [])
    host.open = leaving(24 * MIB)
    const { path: place } = await session.buildRootfs(true)
    // What is there already needs no more.
    host.open = leaving(0)
    await session.pullLayers()
    assert.equal((await session.buildRootfs(true)).path, place)
  })

  test('counts an image once: by its file, or as its pods have it open when that is gone', async (t) => {
    const host = await hostFor(t)
    host.put('x', 1)
    host.put('y', 1)
    host.put('z', 1)
    const session = await host.session('x')
    await session.pullLayers()
    const { rootfsKey, path: place } = await session.buildRootfs(true)
    const pods = (bytes: number) => (): readonly OpenRootImage[] => [
      deleted(bytes, rootfsKey),
      deleted(bytes, rootfsKey),
    ]
    host.open = pods(IMAGES_BYTES_MAX)
    await host.pull('y')
    rmSync(place)
    await assert.rejects(host.pull('z'), REFUSED)
    host.open = pods(IMAGES_BYTES_MAX - 4 * MIB)
    await host.pull('z')
    assert.deepEqual(host.has(), ['x', 'y', 'z'])
  })

  test('lets the longest unused go for it, nobody else’s, and nothing that is in use', async (t) => {
    const host = await hostFor(t)
    for (const tag of ['a', 'b', 'c', 'd', 'e']) host.put(tag, 4)
    host.put('large', 12)
    await host.pull('b', 'other')
    const inUse = await host.session('a')
    await inUse.pullLayers()
    await host.pull('b')
    await host.pull('c')
    await host.pull('d')
    await host.pull('b')
    host.open = leaving(18 * MIB)
    await host.pull('e')
    assert.deepEqual([host.has(), host.has('other')], [['a', 'b', 'd', 'e'], ['b']])
    // 16 of 18 MiB are taken; 10 are needed beyond that, and 12 could go but for one in use.
    host.open = leaving(14 * MIB)
    const held = await host.session('b')
    await assert.rejects(host.pull('large'), REFUSED)
    assert.deepEqual(host.has(), ['a', 'b', 'd', 'e'], 'nothing goes where it would not be enough')
    await held.close()
    await inUse.close()
    await host.pull('large')
    assert.deepEqual(host.has(), ['large'])
  })

  test('keeps root images and their records together, as long as a pod has them open', async (t) => {
    const host = await hostFor(t)
    host.put('x', 1)
    host.put('large', 8)
    const session = await host.session('x')
    await session.pullLayers()
    const { rootfsKey } = await session.buildRootfs(true)
    await session.close()
    // The record would be the first to go.
    utimesSync(path.join(host.folder('rootfs'), `${rootfsKey}.json`), 1, 1)
    const pod = deleted(0, rootfsKey)
    // For the large one all must go: its 8 MiB just fit.
    host.open = () => [...leaving(9 * MIB)(), pod]
    await assert.rejects(host.pull('large'), REFUSED)
    host.open = () => [...leaving(9.75 * MIB)(), pod]
    await host.pull('large')
    assert.deepEqual(host.has(), ['large'])
    assert.deepEqual(readdirSync(host.folder('rootfs')).toSorted(), [
      `${rootfsKey}.erofs`,
      `${rootfsKey}.json`,
    ])
    host.open = leaving(9 * MIB)
    host.put('other', 8)
    await host.pull('other')
    assert.deepEqual(readdirSync(host.folder('rootfs')), [])
  })

  test('keeps what a session leaves to a pod just while room is made', async (t) => {
    const host = await hostFor(t)
    host.put('x', 1)
    host.put('y', 4)
    const first = await host.session('x')
    await first.pullLayers()
    const { path: place } = await first.buildRootfs(true)
    const second = await host.session('y')
    const answer = leaving(5 * MIB)
    host.open = async () => {
      const pods = answer()
      await first.close()
      return pods
    }
    await assert.rejects(second.pullLayers(), REFUSED)
    assert.ok(existsSync(place))
    await second.pullLayers()
    assert.ok(!existsSync(place))
  })

  test('gives what is left to one of two pulls at once', async (t) => {
    const host = await hostFor(t)
    host.put('x', 6)
    host.put('y', 6)
    host.open = leaving(10 * MIB)
    const sessions = await Promise.all([host.session('x'), host.session('y')])
    const ends = await Promise.allSettled(sessions.map((one) => one.pullLayers()))
    assert.deepEqual(
      ends
        .map((end) => (end.status === 'rejected' ? String(end.reason.code) : end.status))
        .toSorted(),
      [REFUSED.code, 'fulfilled'],
    )
  })

  test('makes nobody wait while the files of another tenant are looked at', {
    timeout: 60_000,
  }, async (t) => {
    const host = await hostFor(t)
    host.put('x', 0)
    const session = await host.session('x')
    let answer = (_pods: readonly OpenRootImage[]): void => assert.fail()
    const asked = new Promise<void>((resolve) => {
      host.open = () => {
        host.open = () => []
        resolve()
        return new Promise((give) => {
          answer = give
        })
      }
    })
    const pull = session.pullLayers()
    await asked
    // A session that begins now must not believe in files that are about to be deleted.
    let begun = false
    const begin = async (): Promise<void> => {
      await host.session('x')
      begun = true
    }
    const later = begin()
    await host.pull('x', 'other')
    assert.ok(!begun && !existsSync(host.folder('blobs')))
    answer([])
    await Promise.all([pull, later])
    assert.equal(host.has().length, 1)
  })
})

suite('agent/images/how many files a tenant may have', () => {
  test('lets the longest unused go for those of an image', async (t) => {
    const host = await hostFor(t)
    host.put('x', 0, 0, 0)
    mkdirSync(host.folder('blobs'), { recursive: true })
    const names = Array.from({ length: IMAGES_FILES_MAX - 1 }, (_, index) => `sha256-${index}`)
    for (const name of names) {
      const place = path.join(host.folder('blobs'), name)
      writeFileSync(place, '')
      const ago = Date.now() / 1000 - Number(name.slice(7)) - 60
      utimesSync(place, ago, ago)
    }
    const all = (): readonly string[] => [
      ...readdirSync(host.folder('blobs')),
      ...(existsSync(host.folder('rootfs')) ? readdirSync(host.folder('rootfs')) : []),
    ]
    const session = await host.session('x')
    await session.pullLayers()
    assert.equal(all().length, IMAGES_FILES_MAX)
    await session.buildRootfs(true)
    const left = new Set(all())
    assert.equal(left.size, IMAGES_FILES_MAX)
    assert.deepEqual(
      names.filter((name) => !left.has(name)),
      names.slice(-4),
    )
  })

  test('refuses what does not fit beside those that pods have open', async (t) => {
    const host = await hostFor(t)
    host.put('x', 0, 0)
    const keys = (count: number) => (): readonly OpenRootImage[] =>
      Array.from({ length: count }, (_, index) => deleted(1, String(index).padStart(64, '0')))
    host.open = keys(IMAGES_FILES_MAX - 1)
    const session = await host.session('x')
    await assert.rejects(session.pullLayers(), { ...REFUSED, message: /1 MiB more in 2 files/u })
    host.open = keys(IMAGES_FILES_MAX - 2)
    await session.pullLayers()
  })
})
