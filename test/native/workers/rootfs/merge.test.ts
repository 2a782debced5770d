/** Layers merged into one tree: what whiteouts, replacements and links do to it. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { build } from './build-image.ts'
import { type Found, readErofs } from './erofs-reader.ts'
import { archive, directory, entry, file, hardlink, symlink, whiteout } from './tar-writer.ts'

const treeOf = async (...layers: readonly Buffer[]): Promise<ReadonlyMap<string, Found>> =>
  readErofs((await build(layers)).bytes)

const names = (tree: ReadonlyMap<string, Found>): readonly string[] =>
  [...tree.keys()].filter((name) => name !== '').toSorted()

const refused = { code: 'IMAGE_LAYER_INVALID' }

suite('native/workers/rootfs/merge', () => {
  test('makes parents that no layer describes: 0755, root, no time', async () => {
    const tree = await treeOf(archive(file('a/b/c', 'x')))
    for (const name of ['', 'a', 'a/b']) {
      const { mode, uid, gid, mtime } = tree.get(name) ?? assert.fail(name)
      assert.deepEqual([mode, uid, gid, mtime], [0o755, 0, 0, 0])
    }
  })

  test('lets the upper layer replace files, and describe directories anew', async () => {
    const tree = await treeOf(
      archive(directory('d', { mode: 0o700, uid: 1 }), file('d/keep', 'k'), file('d/f', 'old')),
      archive(directory('d', { mode: 0o711, uid: 2 }), file('d/f', 'newer', { mode: 0o600 })),
    )
    assert.deepEqual(names(tree), ['d', 'd/f', 'd/keep'])
    assert.deepEqual([tree.get('d')?.mode, tree.get('d')?.uid], [0o711, 2])
    assert.deepEqual([tree.get('d/f')?.size, tree.get('d/f')?.mode], [5, 0o600])
  })

  test('keeps the description of a directory that an upper layer only adds to', async () => {
    const tree = await treeOf(archive(directory('d', { uid: 9 })), archive(file('d/f', '')))
    assert.equal(tree.get('d')?.uid, 9)
  })

  for (const order of ['before', 'after']) {
    test(`hides what lower layers have, with the whiteout ${order} the layer's own names`, async () => {
      const marks = [whiteout('gone/.wh.a'), whiteout('.wh.dir'), whiteout('all/.wh..wh..opq')]
      const own = [file('gone/b', ''), file('dir/new', ''), file('all/new', '')]
      const tree = await treeOf(
        archive(
          file('gone/a', ''),
          directory('dir', { uid: 5 }),
          file('dir/old', ''),
          directory('all', { uid: 6 }),
          file('all/old', ''),
          file('all/deep/old', ''),
        ),
        archive(...(order === 'before' ? [...marks, ...own] : [...own, ...marks])),
      )
      assert.deepEqual(names(tree), ['all', 'all/new', 'dir', 'dir/new', 'gone', 'gone/b'])
      // A directory that was hidden whole is another one now; an opaque one is still itself.
      assert.deepEqual([tree.get('dir')?.uid, tree.get('all')?.uid], [0, 6])
    })
  }

  test('never hides names of the same layer', async () => {
    const tree = await treeOf(archive(file('a', 'x'), whiteout('.wh.a'), whiteout('.wh..wh..opq')))
    assert.deepEqual(names(tree), ['a'])
  })

  test('passes over the book-keeping of AUFS and whiteouts of nothing', async () => {
    const tree = await treeOf(
      archive(file('a', '')),
      archive(whiteout('.wh..wh.plnk'), whiteout('no/.wh.such'), whiteout('a/.wh.below')),
    )
    assert.deepEqual(names(tree), ['a'])
  })

  test('replaces a directory by a file and a file by a directory', async () => {
    const tree = await treeOf(
      archive(file('a/b/c', ''), file('d', '')),
      archive(file('a', 'now a file'), directory('d'), file('d/e', '')),
    )
    assert.deepEqual(names(tree), ['a', 'd', 'd/e'])
  })

  test('replaces a symbolic link by the directory that an upper layer describes', async () => {
    const tree = await treeOf(
      archive(symlink('lib', 'usr/lib'), file('usr/lib/x', '')),
      archive(directory('lib'), file('lib/y', '')),
    )
    assert.deepEqual(names(tree), ['lib', 'lib/y', 'usr', 'usr/lib', 'usr/lib/x'])
    assert.equal(tree.get('lib')?.type, 'directory')
  })

  test('gives hard links one inode, across layers too', async () => {
    const tree = await treeOf(
      archive(file('a', 'one'), hardlink('b', 'a')),
      archive(hardlink('c/d', 'b'), file('b', 'other')),
    )
    const [a, b, d] = ['a', 'b', 'c/d'].map((name) => tree.get(name) ?? assert.fail(name))
    assert.equal(a?.inode, d?.inode)
    assert.notEqual(a?.inode, b?.inode)
    assert.deepEqual([a?.links, b?.links], [2, 1])
    assert.equal(a?.content, d?.content)
  })

  test('keeps the content of a hard link whose first name an upper layer hides', async () => {
    const tree = await treeOf(
      archive(file('a', 'content'), hardlink('b', 'a')),
      archive(whiteout('.wh.a')),
    )
    assert.deepEqual(names(tree), ['b'])
    assert.deepEqual([tree.get('b')?.size, tree.get('b')?.links], [7, 1])
  })

  test('counts links of directories', async () => {
    const tree = await treeOf(archive(directory('d/a'), directory('d/b'), file('d/c', '')))
    assert.deepEqual([tree.get('')?.links, tree.get('d')?.links, tree.get('d/a')?.links], [3, 4, 2])
  })

  test('writes nothing of what an upper layer hides', async () => {
    const secret = 'a secret of the lower layer'
    const { bytes } = await build([archive(file('s', secret)), archive(whiteout('.wh.s'))])
    assert.equal(bytes.includes(secret), false)
  })

  const wrong: Readonly<Record<string, readonly Buffer[]>> = {
    'a file twice in one layer': [archive(file('a', 'first'), file('a', 'second'))],
    'a file and a link of one name': [archive(file('a', ''), symlink('a', 'b'))],
    'a directory where the layer has a file': [archive(file('a', ''), directory('a'))],
    'a file where the layer has a directory': [archive(file('a/b', ''), file('a', ''))],
    'a name through a link of the layer': [archive(symlink('a', '/etc'), file('a/passwd', ''))],
    'a name through a link of a lower layer': [
      archive(symlink('a', '/etc')),
      archive(file('a/passwd', '')),
    ],
    'a name through a file of a lower layer': [archive(file('a', '')), archive(file('a/b', ''))],
    'a hard link to nothing': [archive(hardlink('a', 'b'))],
    'a hard link to itself': [archive(hardlink('a', 'a'))],
    'a hard link to a directory': [archive(directory('d'), hardlink('a', 'd'))],
    'a hard link through a symbolic link (CVE-2026-26960)': [
      archive(file('etc/shadow', ''), symlink('up', 'etc'), hardlink('a', 'up/shadow')),
    ],
    'a hard link to what a lower layer had': [
      archive(file('a', '')),
      archive(whiteout('.wh.a'), hardlink('b', 'a')),
    ],
    'a whiteout that is a directory': [archive(directory('.wh.a'))],
    'a whiteout of nothing': [archive(whiteout('a/b'), whiteout('a/.wh.'))],
    'a whiteout of the parent': [archive(whiteout('a/b'), whiteout('a/.wh...'))],
  }
  for (const [what, layers] of Object.entries(wrong)) {
    test(`refuses ${what}`, async () => {
      await assert.rejects(build(layers), refused)
    })
  }

  test('keeps device nodes for a machine of its own only', async () => {
    const layer = archive(entry({ name: 'null', type: '3', device: [1, 3] }))
    const { bytes } = await build([layer])
    assert.equal(readErofs(bytes).get('null')?.content, '1:3')
    await assert.rejects(build([layer], { devices: false }), {
      ...refused,
      message: /device node/u,
    })
  })

  test('refuses more names than permitted, and the directories they imply', async () => {
    const many = archive(...Array.from({ length: 20 }, (_, index) => file(`f${index}`, '')))
    await assert.rejects(build([many], { entries: 19 }), { code: 'IMAGE_TOO_LARGE' })
    const deep = archive(file('a/b/c/d/e/f', ''))
    await assert.rejects(build([deep], { entries: 5 }), { code: 'IMAGE_TOO_LARGE' })
  })
})
