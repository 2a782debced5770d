/** Images put into the test registry, document by document, so that each can be made wrong. */
import { gzipSync } from 'node:zlib'
import { OCI_CONFIG, OCI_INDEX, OCI_MANIFEST } from '../../../../agent/images/descriptor.ts'
import { archive, directory, file } from '../../../native/workers/rootfs/tar-writer.ts'
import { digestOf, type TestRegistry } from './registry.ts'

export const GZIP_LAYER = 'application/vnd.oci.image.layer.v1.tar+gzip'
export const REPOSITORY = 'demo/app'

export const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))

export interface ImageParts {
  readonly layers?: readonly Buffer[]
  /** Over the configuration. */
  readonly config?: Readonly<Record<string, unknown>>
  /** Over the manifest. */
  readonly manifest?: Readonly<Record<string, unknown>>
  readonly tag?: string
  /** Adds an index around the manifest, under the tag. */
  readonly index?: boolean
}

export interface PutImage {
  /** What the tag leads to. */
  readonly digest: string
  readonly manifest: Buffer
  readonly manifestDigest: string
  readonly layers: readonly { readonly digest: string; readonly bytes: Buffer }[]
}

export const defaultLayer = (text = 'hello'): Buffer =>
  archive(directory('etc'), file('etc/greeting', text))

const descriptor = (mediaType: string, bytes: Buffer): object => ({
  mediaType,
  digest: digestOf(bytes),
  size: bytes.length,
})

function configOf(tars: readonly Buffer[], over: ImageParts['config'] = {}): Buffer {
  return json({
    architecture: 'amd64',
    os: 'linux',
    config: {
      Entrypoint: ['/bin/app'],
      Cmd: ['--serve'],
      Env: ['PATH=/bin'],
      WorkingDir: '/srv',
      User: '1000:1000',
      StopSignal: 'SIGINT',
    },
    rootfs: { type: 'layers', diff_ids: tars.map((tar) => digestOf(tar)) },
    ...over,
  })
}

/** Puts an image at REPOSITORY:tag (`latest`). */
export function putImage(registry: TestRegistry, parts: ImageParts = {}): PutImage {
  const tars = parts.layers ?? [defaultLayer()]
  const layers = tars.map((tar) => gzipSync(tar))
  const config = configOf(tars, parts.config)
  const manifest = json({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    config: descriptor(OCI_CONFIG, config),
    layers: layers.map((bytes) => descriptor(GZIP_LAYER, bytes)),
    ...parts.manifest,
  })
  for (const bytes of [config, ...layers]) registry.addBlob(bytes)
  const tag = parts.tag ?? 'latest'
  const isIndex = parts.index === true
  const manifestDigest = registry.addManifest(
    REPOSITORY,
    manifest,
    OCI_MANIFEST,
    ...(isIndex ? [] : [tag]),
  )
  const put = {
    manifest,
    manifestDigest,
    layers: layers.map((bytes) => ({ digest: digestOf(bytes), bytes })),
  }
  if (!isIndex) return { ...put, digest: manifestDigest }
  const other = {
    ...descriptor(OCI_MANIFEST, json({})),
    platform: { os: 'linux', architecture: 'arm64' },
  }
  const own = {
    ...descriptor(OCI_MANIFEST, manifest),
    platform: { os: 'linux', architecture: 'amd64' },
  }
  const index = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [other, own] })
  return { ...put, digest: registry.addManifest(REPOSITORY, index, OCI_INDEX, tag) }
}
