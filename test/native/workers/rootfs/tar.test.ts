/** The tar parser against archives that were made to be read in two ways, or to get out. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { readTar, type TarEntry } from '../../../../native/workers/rootfs/tar.ts'
import {
  archive,
  directory,
  END,
  entry,
  file,
  hardlink,
  pax,
  paxRecords,
  symlink,
} from './tar-writer.ts'

async function* inChunks(bytes: Buffer, size: number): AsyncGenerator<Buffer> {
  for (let at = 0; at < bytes.length; at += size) yield bytes.subarray(at, at + size)
}

interface Read extends TarEntry {
  readonly name: string
  readonly body: string
}

function readOf({ entry: found, body }: { entry: TarEntry; body: readonly Buffer[] }): Read {
  const name = found.path.join('/')
  return { ...found, name, body: Buffer.concat(body).toString('latin1') }
}

async function read(bytes: Buffer, chunk = 1000): Promise<Read[]> {
  const entries: { entry: TarEntry; body: Buffer[] }[] = []
  await readTar(inChunks(bytes, chunk), (found) => {
    const body: Buffer[] = []
    entries.push({ entry: found, body })
    return (part) => void body.push(Buffer.from(part))
  })
  return entries.map(readOf)
}

const GNU = 'ustar  \0'
const refused = { code: 'IMAGE_LAYER_INVALID' }

const wrong: Readonly<Record<string, Buffer>> = {
  'a name that leads out': archive(file('../evil', 'x')),
  'a name that leads out in the middle': archive(file('a/../../evil', 'x')),
  'an absolute name': archive(file('/etc/passwd', 'x')),
  'an absolute PAX name': archive(pax({ path: '/etc/passwd' }), file('a', 'x')),
  'a GNU long name that leads out': archive(
    entry({ name: 'L', type: 'L', body: 'a/../..\0', magic: GNU }),
    file('a', '', { magic: GNU }),
  ),
  'a hard link that leads out': archive(hardlink('a', '../../etc/shadow')),
  'a hard link to an absolute name': archive(hardlink('a', '/etc/shadow')),
  'a PAX hard link that leads out': archive(pax({ linkpath: '../x' }), hardlink('a', 'b')),
  'an entry without a name': archive(file('', 'x')),
  'the root as a symbolic link (CVE-2021-29136)': archive(symlink('.', '/')),
  'the root as a file': archive(file('./', '')),
  'a symbolic link without a target': archive(symlink('a', '')),
  'a part longer than 255 bytes': archive(pax({ path: 'x'.repeat(256) }), file('a', '')),
  'a name deeper than 256': archive(pax({ path: 'd/'.repeat(300) }), directory('d')),
  'a name longer than 4096': archive(pax({ path: 'abc/'.repeat(1100) }), directory('d')),
  'a wrong checksum': (() => {
    const bytes = archive(file('a', 'x'))
    bytes[0] = 0x62
    return bytes
  })(),
  'an unknown format': archive(entry({ name: 'a', magic: 'ustarXX' })),
  'an unknown type': archive(entry({ name: 'a', type: 'Z' })),
  'a GNU sparse file': archive(entry({ name: 'a', type: 'S' })),
  'a PAX sparse file': archive(pax({ 'GNU.sparse.major': '1' }), file('a', '')),
  'a PAX record with a wrong length': archive(
    entry({ name: 'x', type: 'x', body: '99 path=zz\n' }),
    file('a', ''),
  ),
  'a PAX record that is too short': archive(
    entry({ name: 'x', type: 'x', body: '5 path=zz\n' }),
    file('a', ''),
  ),
  'a PAX record without a key': archive(
    entry({ name: 'x', type: 'x', body: '5 =z\n' }),
    file('a', ''),
  ),
  'a PAX key twice': archive(
    entry({
      name: 'x',
      type: 'x',
      body: Buffer.concat([paxRecords({ path: 'a' }), paxRecords({ path: 'b' })]),
    }),
    file('a', ''),
  ),
  'NUL in a PAX path': archive(pax({ path: 'a\0b' }), file('a', '')),
  'an empty PAX path': archive(pax({ path: '' }), file('a', '')),
  'a negative PAX size': archive(pax({ size: '-1' }), file('a', '')),
  'a PAX size that is no number': archive(pax({ size: '1e3' }), file('a', '')),
  'two PAX headers for one entry': archive(pax({ path: 'a' }), pax({ uid: '1' }), file('a', '')),
  'a PAX header without its entry': archive(file('a', ''), pax({ path: 'a' })),
  'a name from PAX and from GNU': archive(
    pax({ path: 'a' }),
    entry({ name: 'L', type: 'L', body: 'b\0', magic: GNU }),
    file('c', ''),
  ),
  'a GNU long name with something behind NUL': archive(
    entry({ name: 'L', type: 'L', body: 'b\0c', magic: GNU }),
    file('c', ''),
  ),
  'a global PAX path': archive(
    entry({ name: 'g', type: 'g', body: paxRecords({ path: 'x' }) }),
    file('a', ''),
  ),
  'a negative size': archive(
    file('a', '', { patch: (header) => void header.fill(0xff, 124, 136) }),
  ),
  'a size beyond 2^53': archive(
    file('a', '', {
      patch: (header) => {
        header.fill(0xff, 124, 136)
        header[124] = 0x80
      },
    }),
  ),
  'a size that is no number': archive(
    file('a', '', { patch: (header) => void header.write('zz', 124) }),
  ),
  'a uid that means no change': archive(file('a', '', { uid: 4_294_967_295 })),
  'a directory with a body': archive(directory('a', { body: 'x' })),
  'a hard link with a body': archive(entry({ name: 'a', type: '1', link: 'b', body: 'x' })),
  'a file with the name of a directory': archive(file('a/', 'x')),
  'device numbers out of range': archive(entry({ name: 'a', type: '3', device: [4096, 0] })),
  'an archive that ends in a body': archive(file('a', 'x', { size: 5000 })).subarray(0, 1024),
  'an archive without its end mark': file('a', 'x'),
  'an archive with half an end mark': Buffer.concat([file('a', 'x'), END.subarray(0, 512)]),
  'an entry behind the end mark': Buffer.concat([archive(file('a', 'x')), archive(file('b', 'x'))]),
  'an entry behind one zero block': Buffer.concat([
    file('a', 'x'),
    Buffer.alloc(512),
    file('b', 'x'),
    END,
  ]),
  'nothing at all': Buffer.alloc(0),
}
suite('native/workers/rootfs/tar', () => {
  test('reads files, directories, links, devices and pipes', async () => {
    const entries = await read(
      archive(
        directory('./etc/', { mode: 0o2755, uid: 3_000_000, gid: 7 }),
        file('etc/passwd', 'root', { mode: 0o4600 }),
        symlink('lib', 'usr/lib'),
        hardlink('shadow', 'etc/passwd'),
        entry({ name: 'null', type: '3', device: [1, 3] }),
        entry({ name: 'sda', type: '4', device: [8, 0x12345] }),
        entry({ name: 'pipe', type: '6' }),
        entry({ name: 'seven', type: '7', body: 'x' }),
      ),
    )
    assert.deepEqual(
      entries.map(({ type, name, body }) => [type, name, body]),
      [
        ['directory', 'etc', ''],
        ['file', 'etc/passwd', 'root'],
        ['symlink', 'lib', ''],
        ['hardlink', 'shadow', ''],
        ['character-device', 'null', ''],
        ['block-device', 'sda', ''],
        ['fifo', 'pipe', ''],
        ['file', 'seven', 'x'],
      ],
    )
    assert.deepEqual([entries[0]?.mode, entries[0]?.uid, entries[1]?.mode], [0o2755, 3e6, 0o4600])
    assert.deepEqual([entries[5]?.deviceMajor, entries[5]?.deviceMinor], [8, 0x12345])
  })

  test('reads the same from chunks of every size', async () => {
    const bytes = archive(file('a', 'x'.repeat(1300)), pax({ path: 'b' }), file('c', 'yy'))
    const whole = await read(bytes, bytes.length)
    for (const size of [1, 7, 511, 512, 513]) assert.deepEqual(await read(bytes, size), whole)
  })

  test('takes names from PAX, from GNU and from the prefix of ustar', async () => {
    const long = `${'d/'.repeat(100)}end`
    const entries = await read(
      archive(
        pax({ path: long, uid: '5', mtime: '12.5', 'SCHILY.xattr.user.k': Buffer.from([0, 255]) }),
        file('short', 'p'),
        entry({ name: 'L', type: 'L', body: `${long}2\0`, magic: GNU }),
        file('short', 'g', { magic: GNU }),
        file('name', 'u', { patch: (header) => void header.write('prefix/dir', 345) }),
        file('name', 'g', { magic: GNU, patch: (header) => void header.write('not', 345) }),
      ),
    )
    assert.deepEqual(
      entries.map(({ name }) => name),
      [long, `${long}2`, 'prefix/dir/name', 'name'],
    )
    assert.deepEqual(entries[0]?.xattrs.get('user.k'), Buffer.from([0, 255]))
    assert.deepEqual(
      [entries[0]?.uid, entries[0]?.mtime, entries[0]?.mtimeNanoseconds],
      [5, 12, 500_000_000],
    )
  })

  test('applies a PAX size to the entry and not to the header after it (CVE-2025-62518)', async () => {
    const body = 'x'.repeat(600)
    const tricky = archive(pax({ size: '600' }), file('a', body, { size: 0 }), file('b', 'after'))
    assert.deepEqual(
      (await read(tricky)).map(({ name, body: found }) => [name, found.length]),
      [
        ['a', 600],
        ['b', 5],
      ],
    )
  })

  test('counts times before 1970 as 1970 and caps those after 2106', async () => {
    const entries = await read(
      archive(
        pax({ mtime: '-5.5' }),
        file('a', ''),
        file('b', '', { patch: (header) => void header.fill(0xff, 136, 148) }),
        pax({ mtime: '99999999999' }),
        file('c', ''),
      ),
    )
    assert.deepEqual(
      entries.map(({ mtime }) => mtime),
      [0, 0, 4_294_967_295],
    )
  })

  for (const [what, bytes] of Object.entries(wrong)) {
    test(`refuses ${what}`, async () => {
      await assert.rejects(read(bytes), refused)
    })
  }

  test('refuses an extended header over 1 MiB', async () => {
    const huge = entry({ name: 'x', type: 'x', body: Buffer.alloc((1 << 20) + 1) })
    await assert.rejects(read(archive(huge)), { code: 'IMAGE_TOO_LARGE' })
  })

  test('lets a global comment and padding after the end mark pass', async () => {
    const comment = entry({ name: 'g', type: 'g', body: paxRecords({ comment: 'commit' }) })
    const bytes = Buffer.concat([archive(comment, file('a', 'x')), Buffer.alloc(8192)])
    assert.equal((await read(bytes)).length, 1)
  })

  test('shows hostile names without control characters', async () => {
    await assert.rejects(read(archive(file('../\x1b[2J\n', ''))), /"\.\.\/\\x1b\[2J\\x0a"/u)
  })
})
