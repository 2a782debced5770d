/** The images that the worker writes: deterministic, complete, and within their caps. */
/* oxlint-disable no-await-in-loop -- one case after the other */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { suite, test } from 'node:test'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { build, buildPacked, digestOf, pack } from './build-image.ts'
import { readErofs } from './erofs-reader.ts'
import { archive, directory, entry, file, pax, symlink } from './tar-writer.ts'

const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')
const SIZES = [0, 1, 4031, 4032, 4033, 4095, 4096, 4097, 8191, 8192, 100_000]

/** A layer with something of everything that changes how an inode is laid out. */
const rich = archive(
  directory('./', { mode: 0o1777, uid: 12, mtime: 5 }),
  ...SIZES.map((size) => file(`size-${size}`, 'x'.repeat(size), { uid: 3_000_000 })),
  ...[4000, 30_000].flatMap((size) => [
    pax({ 'SCHILY.xattr.user.large': 'v'.repeat(size), 'SCHILY.xattr.user.other': 'w' }),
    file(`attributes-${size}`, 'body'.repeat(30)),
  ]),
  symlink('short', 'to'),
  pax({ linkpath: 'y'.repeat(4095) }),
  symlink('long', ''),
  ...Array.from({ length: 500 }, (_, index) => file(`many/${index}${'n'.repeat(index % 90)}`, '')),
  entry({ name: 'bytes-\xff\xfe', body: 'b' }),
  entry({ name: 'pipe', type: '6' }),
  entry({ name: 'device', type: '4', device: [259, 0x54321] }),
)

suite('native/workers/rootfs/image', () => {
  test('holds every file, attribute and link that the layer has', async () => {
    const { bytes, answer } = await build([rich])
    const tree = readErofs(bytes)
    for (const size of SIZES) {
      const found = tree.get(`size-${size}`) ?? assert.fail(`size-${size}`)
      assert.deepEqual(
        [found.size, found.uid, found.content],
        [size, 3e6, sha256('x'.repeat(size))],
      )
    }
    assert.equal(tree.size, answer.entries)
    assert.deepEqual([tree.get('')?.mode, tree.get('')?.uid, tree.get('')?.mtime], [0o1777, 12, 5])
  })

  test('holds attributes larger than a block, long links, devices and names in any bytes', async () => {
    const tree = readErofs((await build([rich])).bytes)
    const large = tree.get('attributes-30000') ?? assert.fail('no attributes')
    assert.deepEqual(
      large.xattrs.map((text) => [text.split('=')[0], (text.split('=')[1]?.length ?? 0) / 2]),
      [
        ['user.large', 30_000],
        ['user.other', 1],
      ],
    )
    assert.equal(large.content, sha256('body'.repeat(30)))
    assert.equal(tree.get('short')?.content, 'to')
    assert.equal(tree.get('long')?.content, 'y'.repeat(4095))
    assert.equal(tree.get('device')?.content, '259:344865')
    assert.equal(tree.get('bytes-\xff\xfe')?.content, sha256('b'))
    assert.equal([...tree.keys()].filter((name) => name.startsWith('many/')).length, 500)
  })

  test('is the same bytes every time, whatever the order of names in the archive', async () => {
    const entries = ['b', 'a', 'c/x', 'c/w'].map((name) => file(name, name))
    const forward = await build([archive(...entries)])
    const again = await build([archive(...entries)])
    const backward = await build([archive(...entries.toReversed())])
    assert.ok(forward.bytes.equals(again.bytes))
    // Another archive has another key, and so another UUID and salt; the rest must not differ.
    const withoutUuid = ({ bytes, answer }: typeof forward): Buffer =>
      Buffer.concat([bytes.subarray(0, 1072), bytes.subarray(1088, answer.data_blocks * 4096)])
    assert.ok(withoutUuid(forward).equals(withoutUuid(backward)))
  })

  test('appends the Merkle tree that its answer names', async () => {
    // Over 128 blocks, so that the tree has more than one level.
    const { bytes, answer } = await build([
      rich,
      archive(file('large', Buffer.alloc(3 << 20, 'l'))),
    ])
    const salt = Buffer.from(answer.salt, 'hex')
    const hash = (block: Buffer): Buffer => createHash('sha256').update(salt).update(block).digest()
    const data = bytes.subarray(0, answer.data_blocks * 4096)
    const levels: Buffer[] = []
    for (let level = data; level.length > 4096 || levels.length === 0; ) {
      const hashes: Buffer[] = []
      for (let at = 0; at < level.length; at += 4096)
        hashes.push(hash(level.subarray(at, at + 4096)))
      const above = Buffer.alloc(Math.ceil(hashes.length / 128) * 4096)
      Buffer.concat(hashes).copy(above)
      levels.unshift(above)
      level = above
    }
    assert.equal(hash(levels[0] ?? assert.fail('no tree')).toString('hex'), answer.root)
    assert.ok(bytes.subarray(data.length).equals(Buffer.concat(levels)))
    assert.equal(levels.length, 2)
    assert.equal(bytes.length, answer.size)
  })

  test('reads gzip in several members and zstd in several frames', async () => {
    const tar = archive(file('a', 'x'.repeat(3000)))
    const parts = [tar.subarray(0, 1000), tar.subarray(1000)]
    const skippable = Buffer.from('502a4d1803000000abcdef', 'hex')
    for (const [packing, bytes] of [
      ['gzip', Buffer.concat(parts.map((part) => gzipSync(part)))],
      ['zstd', Buffer.concat([...parts.map((part) => zstdCompressSync(part)), skippable])],
      ['none', tar],
    ] as const) {
      const layer = {
        packing,
        size: bytes.length,
        digest: digestOf(bytes),
        diff_id: digestOf(tar),
      }
      const image = await buildPacked([{ bytes, layer }])
      assert.equal(readErofs(image.bytes).get('a')?.size, 3000, packing)
    }
  })

  test('keeps capabilities and proper ACLs, and drops labels of another machine', async () => {
    const acl = Buffer.from('0200000001000600ffffffff', 'hex')
    const tree = readErofs(
      (
        await build([
          archive(
            pax({
              'SCHILY.xattr.security.capability': Buffer.from([1, 0, 0, 2]),
              'SCHILY.xattr.system.posix_acl_access': acl,
              'SCHILY.xattr.security.selinux': 'label',
              'SCHILY.xattr.trusted.overlay.opaque': 'y',
            }),
            file('a', ''),
          ),
        ])
      ).bytes,
    )
    assert.deepEqual(tree.get('a')?.xattrs, [
      'security.capability=01000002',
      `system.posix_acl_access=${acl.toString('hex')}`,
    ])
    const broken = archive(pax({ 'SCHILY.xattr.system.posix_acl_access': 'x' }), file('a', ''))
    await assert.rejects(build([broken]), { code: 'IMAGE_LAYER_INVALID' })
    const huge = archive(pax({ 'SCHILY.xattr.user.x': 'v'.repeat(65_536) }), file('a', ''))
    await assert.rejects(build([huge]), { code: 'IMAGE_LAYER_INVALID' })
  })

  test('stops at 100:1, long before everything is unpacked', async () => {
    const bomb = pack(archive(file('zeros', Buffer.alloc(20 << 20))))
    assert.ok(bomb.bytes.length * 100 < 20 << 20)
    await assert.rejects(buildPacked([bomb]), { code: 'IMAGE_TOO_LARGE', message: /100 times/u })
    // The same content in a layer that is not packed so tightly is just a large file.
    await buildPacked([pack(archive(file('zeros', Buffer.alloc(20 << 20))), 'none')])
  })

  test('stops at the cap over all layers together', async () => {
    const layer = archive(file('a', Buffer.alloc(6000)))
    await build([layer, layer], { unpacked_bytes: 2 * layer.length })
    await assert.rejects(build([layer, layer], { unpacked_bytes: 2 * layer.length - 1 }), {
      code: 'IMAGE_TOO_LARGE',
    })
  })

  test('fits its room to the byte, tree and all, or writes nothing', async () => {
    for (const blocks of [1, 128, 200, 17_000]) {
      const layer = pack(archive(file('a', Buffer.alloc(blocks * 4096))), 'none')
      const { bytes, answer } = await buildPacked([layer])
      assert.equal(answer.size, bytes.length)
      await buildPacked([layer], { output_bytes: bytes.length })
      await assert.rejects(buildPacked([layer], { output_bytes: bytes.length - 1 }), {
        code: 'ROOTFS_OUTPUT_TOO_LARGE',
      })
    }
  })

  test('refuses layers that are not what the documents say', async () => {
    const good = pack(archive(file('a', 'x')))
    const other = pack(archive(file('a', 'y')))
    const wrong = {
      digest: { ...good.layer, digest: other.layer.digest },
      diff_id: { ...good.layer, diff_id: other.layer.diff_id },
      size: { ...good.layer, size: good.layer.size + 1 },
    }
    for (const layer of Object.values(wrong)) {
      await assert.rejects(buildPacked([{ ...good, layer }]), { code: 'IMAGE_DIGEST_MISMATCH' })
    }
  })

  test('refuses layers that cannot be unpacked, or end early', async () => {
    const tar = archive(file('a', 'x'.repeat(3000)))
    const cut = gzipSync(tar).subarray(0, -20)
    for (const [packing, bytes] of [
      ['gzip', cut],
      ['gzip', Buffer.from('not gzip at all')],
      ['gzip', Buffer.concat([gzipSync(tar), Buffer.from('trailing')])],
      ['zstd', zstdCompressSync(tar).subarray(0, -3)],
      ['zstd', gzipSync(tar)],
    ] as const) {
      const layer = { packing, size: bytes.length, digest: digestOf(bytes), diff_id: digestOf(tar) }
      await assert.rejects(buildPacked([{ bytes, layer }]), { code: 'IMAGE_LAYER_INVALID' })
    }
  })
})
