/**
 * Room on a real file system that has little of it: a tmpfs of the floor and some MiB more. Pulls and
 * builds are the real ones. What does not fit is refused before it is fetched, and the caches of all
 * tenants give way, the longest unused first.
 */
import assert from 'node:assert/strict'
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import {
  existsSync,
  ftruncateSync,
  mkdtempSync,
  readdirSync,
  rmdirSync,
  statfsSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { suite, type TestContext, test } from 'node:test'
import { createImages, type Images, type RunWorker } from '../../../agent/images/index.ts'
import { FREE_BYTES_MIN } from '../../../agent/images/limits.ts'
import { Room } from '../../../agent/images/room.ts'
import { parseTenantId } from '../../../policy/index.ts'
import { archive, file } from '../../native/workers/rootfs/tar-writer.ts'
import { putImage, REPOSITORY } from './support/image.ts'
import { TestRegistry } from './support/registry.ts'
import { open } from './support/session.ts'
import { runWorkerInChild } from './support/worker.ts'

const MIB = 1 << 20
const GIB = 2 ** 30

interface Stage {
  readonly directory: string
  readonly registry: TestRegistry
  readonly images: Images
  /** Digests of the layers that a tenant has. */
  blobs(tenant: string): readonly string[]
  free(): number
}

interface StageOptions {
  /** Above the floor. */
  readonly mib: number
  readonly mount?: string
  readonly runWorker?: RunWorker
  readonly openKeys?: () => readonly string[]
}

/** Null when this process may not mount: then the test is skipped. */
async function stage(t: TestContext, options: StageOptions): Promise<Stage | null> {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-room-'))
  const size = `size=${FREE_BYTES_MIN + options.mib * MIB}${options.mount ?? ''}`
  if (spawnSync('mount', ['-t', 'tmpfs', '-o', size, 'casemate-test', directory]).status !== 0) {
    rmdirSync(directory)
    t.skip('may not mount a tmpfs: needs root')
    return null
  }
  t.after(() => {
    spawnSync('umount', ['--lazy', directory])
    rmdirSync(directory)
  })
  const registry = await TestRegistry.start(t)
  const images = createImages({
    directory,
    allowances: [{ host: registry.host, insecure: true }],
    runWorker: options.runWorker ?? runWorkerInChild,
    openRootImages: () =>
      Promise.resolve(
        (options.openKeys?.() ?? []).map((key) => ({
          tenant: parseTenantId('other'),
          key,
          bytes: 1,
        })),
      ),
  })
  const blobs = (tenant: string): readonly string[] => {
    const place = path.join(directory, 'blobs', tenant)
    return existsSync(place) ? readdirSync(place) : []
  }
  const free = (): number => {
    const { bavail, bsize } = statfsSync(directory)
    return bavail * bsize
  }
  return { directory, registry, images, blobs, free }
}

/** An image of one layer that cannot be packed. Gives its reference. */
function put({ registry }: Stage, tag: string, mib: number): string {
  putImage(registry, { tag, layers: [archive(file('data', randomBytes(mib * MIB)))] })
  return `${registry.host}/${REPOSITORY}:${tag}`
}

const layerRequests = ({ registry }: Stage): number =>
  registry.seen.filter(({ url }) => url.includes('/blobs/')).length

suite('agent/images/room for pulls', () => {
  test('refuses what does not fit above the floor before a byte of it comes', async (t) => {
    const place = await stage(t, { mib: 16 })
    if (place === null) return
    const session = await open(t, place.registry, {
      images: place.images,
      reference: put(place, 'large', 20),
    })
    const before = layerRequests(place)
    await assert.rejects(session.pullLayers(), {
      code: 'IMAGE_STORAGE_FULL',
      message: /needs 21 MiB .* operator can free disk space/u,
    })
    assert.equal(layerRequests(place), before)
    const small = await open(t, place.registry, {
      images: place.images,
      reference: put(place, 'small', 4),
    })
    await small.pullLayers()
    assert.ok(place.free() >= FREE_BYTES_MIN)
  })

  test('gives the last room to one of two pulls at once, and to the other later', async (t) => {
    const place = await stage(t, { mib: 20 })
    if (place === null) return
    const { images, registry } = place
    const [first, second] = await Promise.all(
      ['one', 'two'].map((tenant) =>
        open(t, registry, { images, tenant, reference: put(place, tenant, 12) }),
      ),
    )
    assert.ok(first !== undefined && second !== undefined)
    const ends = await Promise.allSettled([first.pullLayers(), second.pullLayers()])
    // Which of the two comes first is the disk's affair.
    assert.deepEqual(ends.map(({ status }) => status).toSorted(), ['fulfilled', 'rejected'])
    const won = ends[0].status === 'fulfilled'
    const [winner, loser] = won ? [first, second] : [second, first]
    assert.ok(place.free() >= FREE_BYTES_MIN)
    // While the first is in use it does not give way; afterwards it does.
    await assert.rejects(loser.pullLayers(), { code: 'IMAGE_STORAGE_FULL' })
    await winner.close()
    await loser.pullLayers()
    const left = ['one', 'two'].map((tenant) => place.blobs(tenant).length)
    assert.deepEqual(left, won ? [0, 1] : [1, 0])
  })

  test('lets go of what a failed pull had reserved', async (t) => {
    const place = await stage(t, { mib: 20 })
    if (place === null) return
    const { images, registry } = place
    const session = await open(t, registry, { images, reference: put(place, 'cut', 12) })
    registry.intercept = ({ url }) =>
      url.includes('/blobs/') ? { status: 200, body: 'something else' } : null
    for (let attempt = 0; attempt < 3; attempt += 1) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await assert.rejects(session.pullLayers(), { code: 'IMAGE_DIGEST_MISMATCH' })
    }
    registry.intercept = () => null
    await session.pullLayers()
  })

  test('reserves no more for one tenant than a registry without haste may hold', async (t) => {
    const place = await stage(t, { mib: 100 * 1024 })
    if (place === null) return
    const room = new Room(place.directory, {
      fit: () => Promise.resolve(true),
      giveWay: () => Promise.resolve(false),
    })
    const take = (tenant: string, bytes: number, written = () => 0) =>
      room.take(parseTenantId(tenant), { bytes, files: 1 }, () => ({ bytes: written(), files: 0 }))
    let written = 0
    const first = await take('slow', 10 * GIB, () => written)
    await assert.rejects(take('slow', 7 * GIB), { code: 'IMAGE_BUSY' })
    await take('other', 10 * GIB)
    written = 4 * GIB
    const second = await take('slow', 10 * GIB)
    written = 0
    await assert.rejects(take('slow', 1), { code: 'IMAGE_BUSY' })
    first.end()
    second.end()
    second.end()
    await take('slow', 16 * GIB)
    await assert.rejects(take('slow', 1), { code: 'IMAGE_BUSY' })
  })

  test('takes from all tenants what was used longest ago, and no more than is needed', async (t) => {
    const place = await stage(t, { mib: 34 })
    if (place === null) return
    const { images, registry } = place
    const pull = async (tenant: string, reference: string): Promise<void> => {
      const session = await open(t, registry, { images, tenant, reference })
      await session.pullLayers()
      await session.close()
    }
    const [a, b, c] = [put(place, 'a', 10), put(place, 'b', 10), put(place, 'c', 10)]
    await pull('first', a)
    await pull('second', b)
    await pull('third', c)
    await pull('first', a)
    await pull('fourth', put(place, 'd', 10))
    assert.deepEqual(
      ['first', 'second', 'third', 'fourth'].map((tenant) => place.blobs(tenant).length),
      [1, 0, 1, 1],
    )
    const huge = await open(t, registry, { images, reference: put(place, 'huge', 40) })
    await assert.rejects(huge.pullLayers(), { code: 'IMAGE_STORAGE_FULL' })
    assert.equal(place.blobs('first').length, 1, 'nothing goes where everything would not do')
  })

  test('refuses in the same way when the disk turns out to be full', async (t) => {
    const place = await stage(t, { mib: 64, mount: ',nr_inodes=4' })
    if (place === null) return
    const { images, registry } = place
    const session = await open(t, registry, { images, reference: put(place, 'x', 1) })
    await session.pullLayers()
    const second = await open(t, registry, { images, reference: put(place, 'y', 1) })
    await assert.rejects(second.pullLayers(), { code: 'IMAGE_STORAGE_FULL' })
  })
})

/** A layer of `mib`, packed about fifty to one. */
const sparse = (mib: number): Buffer =>
  archive(
    file(
      'data',
      Buffer.concat(
        Array.from({ length: mib * 32 }, () =>
          Buffer.concat([randomBytes(512), Buffer.alloc(32_256)]),
        ),
      ),
    ),
  )

suite('agent/images/room for root images', () => {
  for (const { mib, fits } of [
    { mib: 60, fits: false },
    { mib: 400, fits: true },
  ]) {
    test(`${fits ? 'builds' : 'refuses'} what unpacks to far more than it looks, with ${mib} MiB free`, async (t) => {
      const asked: number[] = []
      const place = await stage(t, {
        mib,
        runWorker: (work) => {
          const request: { limits: { output_bytes: number } } = JSON.parse(
            Buffer.from(work.request).toString('utf8'),
          )
          assert.equal(work.fileBytes, request.limits.output_bytes)
          asked.push(work.fileBytes)
          return runWorkerInChild(work)
        },
      })
      if (place === null) return
      const { images, registry } = place
      const { layers } = putImage(registry, { layers: [sparse(64)] })
      const packed = layers[0]?.bytes.length ?? 0
      assert.ok(packed < 2 * MIB)
      const session = await open(t, registry, { images })
      await session.pullLayers()
      const build = session.buildRootfs(true)
      if (fits) assert.ok((await build).size > 64 * MIB)
      else await assert.rejects(build, { code: 'IMAGE_STORAGE_FULL' })
      assert.equal(asked[0], 4 * packed + 16 * MIB)
      assert.equal(asked.length, fits ? 2 : 1)
      assert.ok(asked.every((bytes) => bytes <= mib * MIB))
      assert.ok(place.free() >= FREE_BYTES_MIN)
    })
  }

  test('a worker that was taken over writes no more than was reserved', async (t) => {
    const place = await stage(t, {
      mib: 40,
      runWorker: async ({ fds, fileBytes }) => {
        const flood = ['-c', `exec prlimit --fsize=${fileBytes} cat /dev/zero >&3`]
        const { signal } = spawnSync('sh', flood, {
          stdio: ['ignore', 'ignore', 'ignore', fds[0] ?? -1],
        })
        assert.equal(signal, 'SIGXFSZ')
        throw new Error('the worker ended with SIGXFSZ')
      },
    })
    if (place === null) return
    const { images, registry } = place
    const session = await open(t, registry, { images, reference: put(place, 'x', 1) })
    await session.pullLayers()
    await assert.rejects(session.buildRootfs(true), /SIGXFSZ/u)
    assert.ok(place.free() >= FREE_BYTES_MIN, 'and its output is gone')
  })

  test('counts once what a build has written, and again what it has taken back', async (t) => {
    let duringBuild = (_output: number, _bytes: number): Promise<void> => assert.fail()
    const place = await stage(t, {
      mib: 48,
      runWorker: async (work) => {
        await duringBuild(work.fds[0] ?? -1, work.fileBytes)
        return runWorkerInChild(work)
      },
    })
    if (place === null) return
    const { images, registry } = place
    const session = await open(t, registry, { images, reference: put(place, 'x', 1) })
    await session.pullLayers()
    const other = await open(t, registry, {
      images,
      tenant: 'other',
      reference: put(place, 'other', 20),
    })
    duringBuild = async (output, bytes) => {
      // Beside the layer, 47 MiB are free. The build has 20 of them: all on disk, then none.
      assert.ok(bytes > 20 * MIB && bytes < 21 * MIB)
      writeSync(output, Buffer.alloc(bytes, 1))
      await other.pullLayers()
      ftruncateSync(output)
      const third = await open(t, registry, {
        images,
        tenant: 'third',
        reference: put(place, 'third', 10),
      })
      await assert.rejects(third.pullLayers(), { code: 'IMAGE_STORAGE_FULL' })
    }
    await session.buildRootfs(true)
    assert.ok(place.free() >= FREE_BYTES_MIN)
  })

  test('keeps the root images that pods have open', async (t) => {
    let keys: readonly string[] = []
    const place = await stage(t, { mib: 52, openKeys: () => keys })
    if (place === null) return
    const { images, registry } = place
    const older = await open(t, registry, {
      images,
      tenant: 'other',
      reference: put(place, 'older', 5),
    })
    await older.pullLayers()
    const { rootfsKey, path: kept } = await older.buildRootfs(true)
    keys = [rootfsKey]
    await older.close()
    const session = await open(t, registry, { images, reference: put(place, 'new', 48) })
    await assert.rejects(session.pullLayers(), { code: 'IMAGE_STORAGE_FULL' })
    assert.ok(existsSync(kept))
    keys = []
    await session.pullLayers()
    assert.ok(!existsSync(kept))
  })
})
