/**
 * A reference becomes an image: once, to bytes whose digest was computed here. Everything after goes
 * by those bytes; nothing is fetched a second time by name (CVE-2022-47633).
 */
import type { Digest, ResolvedImage } from '../../policy/index.ts'
import type { ParsedConfig } from './config.ts'
import { type Descriptor, INDEX_TYPES, MANIFEST_TYPES } from './descriptor.ts'
import { invalid } from './document.ts'
import { ImageError } from './errors.ts'
import { CHECK_MS, CONFIG_BYTES_MAX } from './limits.ts'
import type { Layer } from './manifest.ts'
import { formatReference, type Reference } from './reference.ts'
import type { ManifestBytes, RegistryClient } from './registry/client.ts'
import { runTask } from './run.ts'

export interface ImageLayer extends Layer {
  /** Digest of the layer unpacked. */
  readonly diffId: Digest
}

export interface Image {
  /** As asked for, fully expanded. */
  readonly reference: Reference
  /** Registry, repository, and the digest that the reference resolved to: what signatures name. */
  readonly resolved: ResolvedImage
  /** What `resolved.digest` is: an index or the manifest itself; size and media type of those bytes. */
  readonly target: Descriptor
  /** The manifest for this platform; its digest is `resolved.digest` unless that is an index. */
  readonly manifest: ManifestBytes
  readonly configDigest: Digest
  readonly process: ParsedConfig['process']
  /** Lowest first. */
  readonly layers: readonly ImageLayer[]
}

const once = (bytes: Uint8Array): { bytes: number; timeoutMs: number } => ({
  bytes: bytes.length,
  timeoutMs: CHECK_MS,
})

/** The manifest itself, or the one that an index names: digest, size and type as the index says. */
async function platformManifest(
  client: RegistryClient,
  top: ManifestBytes,
): Promise<ManifestBytes> {
  if (MANIFEST_TYPES.has(top.contentType)) return top
  if (!INDEX_TYPES.has(top.contentType)) {
    throw invalid(`the media type ${top.contentType.slice(0, 100)} is not an image's`)
  }
  const child = await runTask('chooseFromIndex', top, once(top.bytes))
  const manifest = await client.manifest(child.digest)
  if (manifest === null) {
    throw new ImageError(
      'IMAGE_UNKNOWN',
      `The registry has no ${child.digest}, which the index names.`,
    )
  }
  if (manifest.bytes.length !== child.size || manifest.contentType !== child.mediaType) {
    throw new ImageError(
      'IMAGE_DIGEST_MISMATCH',
      `The manifest ${child.digest} is not what the index says of it.`,
    )
  }
  return manifest
}

/** parseConfig made sure that there is one for each. */
function withDiffIds(layers: readonly Layer[], diffIds: readonly Digest[]): ImageLayer[] {
  const paired: ImageLayer[] = []
  for (const [index, diffId] of diffIds.entries()) {
    const layer = layers[index]
    if (layer !== undefined) paired.push({ ...layer, diffId })
  }
  return paired
}

/** @throws ImageError */
export async function resolveImage(client: RegistryClient, reference: Reference): Promise<Image> {
  const top = await client.manifest(reference.digest ?? reference.tag ?? '')
  if (top === null) {
    throw new ImageError(
      'IMAGE_UNKNOWN',
      `There is no image ${formatReference(reference)}. Check the name, the tag and the credentials.`,
    )
  }
  const manifest = await platformManifest(client, top)
  const { config, layers } = await runTask('parseManifest', manifest, once(manifest.bytes))
  const bytes = await client.blobBytes(config, CONFIG_BYTES_MAX, 'a configuration')
  const parsed = await runTask('parseConfig', { bytes, layers: layers.length }, once(bytes))
  return {
    reference,
    resolved: { ...client.name, digest: top.digest },
    target: { mediaType: top.contentType, digest: top.digest, size: top.bytes.length },
    manifest,
    configDigest: config.digest,
    process: parsed.process,
    layers: withDiffIds(layers, parsed.diffIds),
  }
}
