/**
 * An image pushed by skopeo to Debian's docker-registry, pulled and merged by us: the tree equals what
 * umoci unpacks, fsck.erofs and the kernel read it, and its Merkle tree is veritysetup's.
 */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, suite, test } from 'node:test'
import { gzipSync } from 'node:zlib'
import { OCI_CONFIG, OCI_INDEX, OCI_MANIFEST } from '../../agent/images/descriptor.ts'
import { createImages, type Rootfs } from '../../agent/images/index.ts'
import { parseTenantId } from '../../policy/index.ts'
import { GZIP_LAYER, json } from '../agent/images/support/image.ts'
import { digestOf } from '../agent/images/support/registry.ts'
import { runWorkerInChild } from '../agent/images/support/worker.ts'
import {
  archive,
  directory,
  entry,
  file,
  hardlink,
  pax,
  symlink,
  whiteout,
} from '../native/workers/rootfs/tar-writer.ts'
import { differences, type Listing, listDirectory, listImage } from './images-listing.ts'
import { missing, must, type Peer, run, startDockerRegistry } from './images-programs.ts'

const ours = [
  archive(
    directory('./', { mode: 0o755, uid: 0 }),
    directory('bin', { mode: 0o755 }),
    file('bin/su', 'setuid', { mode: 0o4755 }),
    pax({
      'SCHILY.xattr.security.capability': Buffer.from(
        '0100000200200000000000000000000000000000',
        'hex',
      ),
    }),
    file('bin/ping', 'capable', { mode: 0o755 }),
    pax({ 'SCHILY.xattr.user.note': 'kept' }),
    file('bin/noted', 'x'),
    file('data/large', Buffer.alloc(3 << 20, 'abc')),
    file('data/owned', '', { uid: 3_000_000, gid: 70_000, mode: 0o600 }),
    hardlink('data/second', 'data/large'),
    directory('tmp', { mode: 0o1777 }),
    directory('gone'),
    file('gone/a', 'a'),
    directory('opaque'),
    file('opaque/old', 'old'),
    file('replaced-by-directory', 'x'),
    directory('replaced-by-file'),
    file('replaced-by-file/child', 'x'),
    symlink('link', 'data/large'),
    symlink('absolute', '/etc/passwd'),
    entry({ name: 'null', type: '3', device: [1, 3], mode: 0o666 }),
    entry({ name: 'pipe', type: '6' }),
    pax({ path: `${'long/'.repeat(40)}name` }),
    file('short', 'far down'),
    file('Case', 'upper'),
    file('case', 'lower'),
  ),
  archive(
    whiteout('.wh.gone'),
    directory('opaque', { mode: 0o700 }),
    whiteout('opaque/.wh..wh..opq'),
    file('opaque/new', 'new'),
    whiteout('data/.wh.large'),
    directory('replaced-by-directory'),
    file('replaced-by-directory/child', 'y'),
    file('replaced-by-file', 'y'),
    file('bin/noted', 'changed'),
    hardlink('third', 'data/second'),
  ),
]

/** Files as they lie on this machine, in an archive by GNU tar. */
async function machineLayer(format: 'gnu' | 'pax'): Promise<Buffer> {
  const parameters = [`--format=${format}`, '-C', '/', '-cf', '-', '--warning=none', 'etc']
  const { stdout, code } = await run('tar', parameters)
  assert.ok(code <= 1, 'tar reads /etc')
  return stdout
}

/** Writes an OCI image layout with one image, called `app`. */
function writeLayout(place: string, tars: readonly Buffer[]): void {
  const blobs = path.join(place, 'blobs', 'sha256')
  mkdirSync(blobs, { recursive: true })
  const put = (mediaType: string, bytes: Buffer): object => {
    const digest = digestOf(bytes)
    writeFileSync(path.join(blobs, digest.slice(7)), bytes)
    return { mediaType, digest, size: bytes.length }
  }
  const layers = tars.map((tar) => put(GZIP_LAYER, gzipSync(tar, { level: 1 })))
  const rootfs = { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) }
  const config = put(
    OCI_CONFIG,
    json({ architecture: 'amd64', os: 'linux', config: { Cmd: ['/bin/su'] }, rootfs }),
  )
  const manifest = put(
    OCI_MANIFEST,
    json({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers }),
  )
  const named = { ...manifest, annotations: { 'org.opencontainers.image.ref.name': 'app' } }
  const index = { schemaVersion: 2, mediaType: OCI_INDEX, manifests: [named] }
  writeFileSync(path.join(place, 'index.json'), json(index))
  writeFileSync(path.join(place, 'oci-layout'), json({ imageLayoutVersion: '1.0.0' }))
}

const skip = missing('docker-registry', 'skopeo', 'umoci')

suite('peers/images: merge', { skip }, () => {
  let place = ''
  let registry: Peer | null = null
  let rootfs: Rootfs
  let expected: Listing

  before(async () => {
    place = mkdtempSync(path.join(tmpdir(), 'casemate-peers-'))
    const layout = path.join(place, 'layout')
    writeLayout(layout, [await machineLayer('gnu'), ...ours])
    registry = await startDockerRegistry(place)
    const { host } = registry
    await must('skopeo', [
      '--insecure-policy',
      'copy',
      '--dest-tls-verify=false',
      `oci:${layout}:app`,
      `docker://${host}/demo/merge:1`,
    ])
    const images = createImages({
      directory: path.join(place, 'agent'),
      allowances: [{ host, insecure: true }],
      runWorker: runWorkerInChild,
    })
    const session = await images.resolve(`${host}/demo/merge:1`, {
      tenant: parseTenantId('acme'),
      credentials: null,
      access: 'pull',
    })
    await session.pullLayers()
    rootfs = await session.buildRootfs(true)
    await session.close()
    await must('umoci', ['unpack', '--image', `${layout}:app`, path.join(place, 'bundle')])
    expected = await listDirectory(path.join(place, 'bundle', 'rootfs'))
  })

  after(() => {
    registry?.stop()
    rmSync(place, { recursive: true, force: true })
  })

  test('equals what umoci unpacks, name by name', () => {
    assert.ok(expected.length > 100, 'there is something to compare')
    assert.deepEqual(differences(listImage(readFileSync(rootfs.path)), expected), [])
  })

  test('is in order for fsck.erofs, which extracts the same', {
    skip: missing('fsck.erofs'),
  }, async () => {
    const data = path.join(place, 'data.erofs')
    writeFileSync(data, readFileSync(rootfs.path).subarray(0, rootfs.verity.data_blocks * 4096))
    const extracted = path.join(place, 'extracted')
    await must('fsck.erofs', [`--extract=${extracted}`, '--preserve', data])
    // fsck.erofs 1.5 restores no extended attributes, hard links and setuid bits.
    const plain = (listing: Listing): Listing =>
      listing.map((line) =>
        line
          .replace(/ \| [0-9]+ links/u, '')
          .replace(/ \| (?:user|security)\..*$/u, '')
          .replace(/(?<=^[^|]*\| file \| )4(?=[0-7]{3} )/u, ''),
      )
    assert.deepEqual(differences(plain(await listDirectory(extracted)), plain(expected)), [])
  })

  test('is the same tree to the kernel', async (context) => {
    const mountPoint = path.join(place, 'mounted')
    mkdirSync(mountPoint)
    const mounted = await run('mount', ['-t', 'erofs', '-o', 'loop,ro', rootfs.path, mountPoint])
    if (mounted.code !== 0) return context.skip(`cannot mount EROFS here: ${mounted.stderr.trim()}`)
    try {
      assert.deepEqual(differences(await listDirectory(mountPoint), expected), [])
      assert.equal(statSync(path.join(mountPoint, 'third')).nlink, 2)
    } finally {
      await must('umount', [mountPoint])
    }
  })

  test('has the Merkle tree that veritysetup makes and verifies', {
    skip: missing('veritysetup'),
  }, async () => {
    const { data_blocks: blocks, root, salt } = rootfs.verity
    const bytes = readFileSync(rootfs.path)
    const [data, tree, theirs] = ['data', 'tree', 'theirs'].map((name) => path.join(place, name))
    writeFileSync(data ?? '', bytes.subarray(0, blocks * 4096))
    writeFileSync(tree ?? '', bytes.subarray(blocks * 4096))
    const options = [
      '--no-superblock',
      `--salt=${salt}`,
      '--hash=sha256',
      `--data-blocks=${blocks}`,
    ]
    await must('veritysetup', ['verify', ...options, data ?? '', tree ?? '', root])
    const said = await must('veritysetup', ['format', ...options, data ?? '', theirs ?? ''])
    assert.match(said.toString('utf8'), new RegExp(`Root hash:\\s+${root}`, 'u'))
    assert.ok(readFileSync(theirs ?? '').equals(bytes.subarray(blocks * 4096)))
  })
})
