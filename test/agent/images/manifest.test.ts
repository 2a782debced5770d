/** Manifests, indexes and configurations that have two readings, or none. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { parseConfig } from '../../../agent/images/config.ts'
import {
  DOCKER_CONFIG,
  DOCKER_LIST,
  DOCKER_MANIFEST,
  OCI_CONFIG,
  OCI_INDEX,
  OCI_MANIFEST,
} from '../../../agent/images/descriptor.ts'
import { chooseFromIndex, parseManifest } from '../../../agent/images/manifest.ts'
import { GZIP_LAYER, json } from './support/image.ts'

const DIGEST = `sha256:${'a'.repeat(64)}`
const part = (mediaType: string, over: object = {}): object => ({
  mediaType,
  digest: DIGEST,
  size: 10,
  ...over,
})
const manifest = (over: object = {}): Buffer =>
  json({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: part(OCI_CONFIG),
    layers: [part(GZIP_LAYER)],
    ...over,
  })
const platform = (architecture: string, over: object = {}): object => ({
  platform: { os: 'linux', architecture, ...over },
})
const index = (...manifests: readonly object[]): Buffer =>
  json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests })
const config = (over: object = {}): Buffer =>
  json({
    os: 'linux',
    architecture: 'amd64',
    rootfs: { type: 'layers', diff_ids: [DIGEST] },
    ...over,
  })

const invalid = { code: 'IMAGE_MANIFEST_INVALID' }

suite('agent/images/manifest', () => {
  test('reads manifests of OCI and of Docker', () => {
    assert.equal(parseManifest(manifest(), OCI_MANIFEST).layers[0]?.packing, 'gzip')
    const docker = manifest({
      mediaType: DOCKER_MANIFEST,
      config: part(DOCKER_CONFIG),
      layers: [part('application/vnd.docker.image.rootfs.diff.tar.gzip')],
    })
    assert.equal(parseManifest(docker, DOCKER_MANIFEST).layers.length, 1)
    const plain = manifest({ layers: [part('application/vnd.oci.image.layer.v1.tar+zstd')] })
    assert.equal(parseManifest(plain, OCI_MANIFEST).layers[0]?.packing, 'zstd')
  })

  const text = manifest().toString('utf8')
  const wrong: Readonly<Record<string, Buffer>> = {
    'something that is not JSON': Buffer.from('<html>'),
    'a byte order mark': Buffer.concat([Buffer.from([0xef, 0xbb, 0xbf]), manifest()]),
    'UTF-16': Buffer.from(text, 'utf16le'),
    'a member twice': Buffer.from(text.replace('{', `{"layers":[],`)),
    'a member in other case': manifest({ Layers: [] }),
    'a digest in other case': manifest({ config: part(OCI_CONFIG, { Digest: DIGEST }) }),
    'brackets without end': Buffer.from('['.repeat(100_000)),
    'an index and a manifest in one (CVE-2021-41190)': manifest({ manifests: [] }),
    'another media type than the registry says': manifest({ mediaType: OCI_INDEX }),
    'schema version 1': manifest({ schemaVersion: 1 }),
    'schema 1 with layers': manifest({ fsLayers: [] }),
    'no layers': manifest({ layers: [] }),
    'a foreign layer': manifest({
      layers: [part('application/vnd.oci.image.layer.nondistributable.v1.tar+gzip')],
    }),
    'a layer with URLs (CVE-2020-15157)': manifest({
      layers: [part(GZIP_LAYER, { urls: ['https://x.example/'] })],
    }),
    'a digest with a path in it (CVE-2024-3727)': manifest({
      layers: [part(GZIP_LAYER, { digest: 'sha256:../../../etc/passwd' })],
    }),
    'an unknown digest algorithm': manifest({
      layers: [part(GZIP_LAYER, { digest: `md5:${'a'.repeat(32)}` })],
    }),
    'a negative size': manifest({ layers: [part(GZIP_LAYER, { size: -1 })] }),
    'a size that is a string': manifest({ layers: [part(GZIP_LAYER, { size: '10' })] }),
    'a configuration that is no image': manifest({
      config: part('application/vnd.oci.empty.v1+json'),
    }),
    'a helm chart': manifest({ config: part('application/vnd.cncf.helm.config.v1+json') }),
  }
  for (const [what, bytes] of Object.entries(wrong)) {
    test(`refuses ${what}`, () => {
      assert.throws(() => parseManifest(bytes, OCI_MANIFEST), invalid)
    })
  }

  test('refuses what is too large', () => {
    const layers = Array.from({ length: 128 }, () => part(GZIP_LAYER))
    const huge = [part(GZIP_LAYER, { size: 2 ** 40 })]
    for (const bytes of [
      manifest({ layers }),
      manifest({ layers: huge }),
      manifest({ config: part(OCI_CONFIG, { size: 9 << 20 }) }),
    ]) {
      assert.throws(() => parseManifest(bytes, OCI_MANIFEST), { code: 'IMAGE_TOO_LARGE' })
    }
  })

  test('chooses the plain amd64 manifest of an index', () => {
    const plain = part(OCI_MANIFEST, { ...platform('amd64'), size: 11 })
    const bytes = index(
      part(OCI_MANIFEST, platform('arm64')),
      part(OCI_MANIFEST, platform('amd64', { variant: 'v3' })),
      part(OCI_MANIFEST, { platform: { os: 'windows', architecture: 'amd64' } }),
      part(OCI_MANIFEST, { platform: { os: 'unknown', architecture: 'unknown' } }),
      part(OCI_MANIFEST),
      plain,
    )
    assert.equal(chooseFromIndex(bytes, OCI_INDEX).size, 11)
    const list = json({ schemaVersion: 2, mediaType: DOCKER_LIST, manifests: [plain] })
    assert.equal(chooseFromIndex(list, DOCKER_LIST).size, 11)
  })

  test('refuses indexes without the platform, with layers, and with too many entries', () => {
    assert.throws(() => chooseFromIndex(index(), OCI_INDEX), { code: 'IMAGE_PLATFORM_MISSING' })
    const both = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [], layers: [] })
    assert.throws(() => chooseFromIndex(both, OCI_INDEX), invalid)
    const many = index(...Array.from({ length: 1001 }, () => part(OCI_MANIFEST)))
    assert.throws(() => chooseFromIndex(many, OCI_INDEX), { code: 'IMAGE_TOO_LARGE' })
  })
})

suite('agent/images/config', () => {
  const wrong: Readonly<Record<string, Buffer>> = {
    'fewer diff_ids than layers': config({ rootfs: { type: 'layers', diff_ids: [] } }),
    'more diff_ids than layers': config({ rootfs: { type: 'layers', diff_ids: [DIGEST, DIGEST] } }),
    'a diff_id that is no digest': config({ rootfs: { type: 'layers', diff_ids: ['x'] } }),
    'another type of rootfs': config({ rootfs: { type: 'other', diff_ids: [DIGEST] } }),
    'a command that is a string': config({ config: { Cmd: '/bin/sh' } }),
    'a command of numbers': config({ config: { Cmd: [1] } }),
    'a user that is a number': config({ config: { User: 0 } }),
    'a member in other case': config({ config: { user: '0' } }),
  }
  for (const [what, bytes] of Object.entries(wrong)) {
    test(`refuses ${what}`, () => {
      assert.throws(() => parseConfig(bytes, 1), invalid)
    })
  }

  test('refuses another platform than the index promised', () => {
    for (const over of [{ architecture: 'arm64' }, { os: 'windows' }]) {
      assert.throws(() => parseConfig(config(over), 1), { code: 'IMAGE_PLATFORM_MISSING' })
    }
  })

  test('passes on a member called __proto__ as nothing', () => {
    const bytes = Buffer.from(
      config({ config: { Cmd: ['a'] } })
        .toString('utf8')
        .replace('"Cmd"', '"__proto__":{"User":"0"},"Cmd"'),
    )
    assert.equal(parseConfig(bytes, 1).process.user, '')
  })
})
