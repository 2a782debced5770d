import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { EMPTY_ROOT, Frontier, leafHash } from '../../audit/merkle.ts'
import {
  AuditCorrupt,
  decodeBundle,
  encodeBundle,
  partialWidth,
  TileTree,
  tilePath,
} from '../../audit/tiles.ts'

const entryOf = (index: number): Buffer => Buffer.from(`entry ${index}`)

/** A tree of `size` entries that was published at the given sizes on the way. */
function publish(sizes: readonly number[]): {
  readonly files: Map<string, Buffer>
  readonly tree: TileTree
} {
  const files = new Map<string, Buffer>()
  const tree = new TileTree((path) => {
    const bytes = files.get(path)
    return bytes === undefined ? Promise.reject(new Error(`no ${path}`)) : Promise.resolve(bytes)
  })
  for (const size of sizes) {
    while (tree.size < size) tree.append(entryOf(tree.size))
    const made = tree.files()
    for (const file of made) files.set(file.path, file.bytes)
    tree.written(made)
  }
  return { files, tree }
}

const rootOf = (size: number): Buffer => {
  const frontier = new Frontier()
  for (let index = 0; index < size; index += 1) frontier.append(leafHash(entryOf(index)))
  return frontier.root()
}

suite('audit/tiles', () => {
  test('names tiles as the specification does', () => {
    assert.equal(tilePath(0, 0), 'tile/0/000')
    assert.equal(tilePath(3, 1_234_067), 'tile/3/x001/x234/067')
    assert.equal(tilePath('entries', 5, 17), 'tile/entries/005.p/17')
    assert.deepEqual(
      [0, 1, 2, 3].map((level) => partialWidth(level, 70_000)),
      [112, 17, 1, 0],
    )
  })

  for (const size of [1, 2, 255, 256, 257, 511, 512, 513, 65_535, 65_536, 65_537, 70_000]) {
    test(`writes exactly the tiles of a tree of ${size}, and loads it again`, async () => {
      const { files, tree } = publish([size])
      const expected: string[] = []
      for (const level of [0, 1, 2, 3]) {
        const full = Math.floor(size / 256 ** (level + 1))
        const width = partialWidth(level, size)
        for (const named of level === 0 ? ([0, 'entries'] as const) : [level]) {
          for (let index = 0; index < full; index += 1) expected.push(tilePath(named, index))
          if (width > 0) expected.push(tilePath(named, full, width))
        }
      }
      assert.deepEqual([...files.keys()].toSorted(), expected.toSorted())
      const root = rootOf(size)
      assert.ok(tree.root().equals(root))
      const read = (path: string): Promise<Buffer> =>
        Promise.resolve(files.get(path) ?? Buffer.alloc(0))
      const loaded = await TileTree.load(read, { size, root })
      assert.ok(loaded.append(entryOf(size)).equals(leafHash(entryOf(size))))
      assert.ok(loaded.root().equals(rootOf(size + 1)))
      assert.ok((await loaded.hash({ from: 0, to: size })).equals(root))
    })
  }

  test('never writes a full tile that is not full, nor anew what it wrote', () => {
    const { tree } = publish([255])
    assert.ok(tree.files().every((file) => file.replaces === null))
    tree.append(entryOf(255))
    const full = tree.files().filter((file) => file.replaces !== null)
    assert.deepEqual(
      full.map((file) => file.path),
      ['tile/entries/000', 'tile/0/000'],
    )
    tree.written(full)
    assert.deepEqual(
      tree.files().map((file) => file.path),
      ['tile/1/000.p/1'],
    )
  })

  test('refuses tiles that are not those of the root', async () => {
    const { files } = publish([300])
    const root = rootOf(300)
    for (const [path, bytes] of files) {
      // Full tiles below the right edge are not read at the start.
      if (!path.includes('.p/')) continue
      for (const position of [0, bytes.length - 1]) {
        const changed = new Map(files)
        const copy = Buffer.from(bytes)
        copy.writeUInt8(copy.readUInt8(position) ^ 1, position)
        changed.set(path, copy)
        const read = (name: string): Promise<Buffer> =>
          Promise.resolve(changed.get(name) ?? Buffer.alloc(0))
        // oxlint-disable-next-line no-await-in-loop
        await assert.rejects(TileTree.load(read, { size: 300, root }), AuditCorrupt, path)
      }
    }
    const empty = await TileTree.load(() => Promise.reject(new Error('no file')), {
      size: 0,
      root: EMPTY_ROOT,
    })
    assert.equal(empty.size, 0)
  })

  test('reads entries back, and refuses one that is not the one of the tree', async () => {
    const { files, tree } = publish([256, 600])
    for (const index of [0, 255, 256, 511, 512, 599]) {
      // oxlint-disable-next-line no-await-in-loop
      assert.deepEqual(await tree.entry(index), entryOf(index))
    }
    await assert.rejects(tree.entry(600), RangeError)
    files.set('tile/entries/000', encodeBundle(Array.from({ length: 256 }, () => entryOf(7))))
    assert.deepEqual(await tree.entry(7), entryOf(7))
    await assert.rejects(tree.entry(8), AuditCorrupt)
  })

  test('bundles entries with their lengths in two bytes', () => {
    const entries = [Buffer.alloc(0), Buffer.from('a'), Buffer.alloc(65_535, 1)]
    assert.deepEqual(decodeBundle(encodeBundle(entries)), entries)
    assert.equal(decodeBundle(Buffer.from('00', 'hex')), null)
    assert.equal(decodeBundle(Buffer.from('000261', 'hex')), null)
    assert.equal(decodeBundle(Buffer.alloc(2 * 257)), null)
    assert.throws(
      () => new TileTree(() => Promise.reject(new Error('none'))).append(Buffer.alloc(65_536)),
      RangeError,
    )
  })
})
