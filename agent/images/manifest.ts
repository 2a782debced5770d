/** Image manifests and indexes (image-spec manifest.md, image-index.md; Docker's schema 2). */
import type { LayerPacking } from '../../native/workers/rootfs/request.ts'
import type { Canonical } from '../../policy/canonical.ts'
import {
  type Descriptor,
  DOCKER_CONFIG,
  descriptorMembers,
  MANIFEST_TYPES,
  mediaTypeOf,
  OCI_CONFIG,
  parseDescriptor,
} from './descriptor.ts'
import {
  invalid,
  listOf,
  type Members,
  objectOf,
  optionalStringOf,
  parseDocument,
} from './document.ts'
import { ImageError } from './errors.ts'
import {
  CONFIG_BYTES_MAX,
  INDEX_ENTRIES_MAX,
  LAYERS_MAX,
  MANIFEST_BYTES_MAX,
  PACKED_BYTES_MAX,
} from './limits.ts'

export const PLATFORM = { os: 'linux', architecture: 'amd64' } as const

export interface Layer extends Descriptor {
  readonly packing: LayerPacking
}

export interface Manifest {
  readonly config: Descriptor
  /** Lowest first. */
  readonly layers: readonly Layer[]
}

const LAYER_TYPES: ReadonlyMap<string, LayerPacking> = new Map([
  ['application/vnd.oci.image.layer.v1.tar', 'none'],
  ['application/vnd.oci.image.layer.v1.tar+gzip', 'gzip'],
  ['application/vnd.oci.image.layer.v1.tar+zstd', 'zstd'],
  ['application/vnd.docker.image.rootfs.diff.tar', 'none'],
  ['application/vnd.docker.image.rootfs.diff.tar.gzip', 'gzip'],
  ['application/vnd.docker.image.rootfs.diff.tar.zstd', 'zstd'],
])

const KNOWN = [
  'schemaVersion',
  'mediaType',
  'config',
  'layers',
  'manifests',
  'artifactType',
  'subject',
]

function open(bytes: Uint8Array, contentType: string, what: string): Members {
  const document = parseDocument(bytes, MANIFEST_BYTES_MAX, what, KNOWN)
  mediaTypeOf(document, contentType, what)
  // Schema 1 has neither digests of its layers' content nor a configuration to check them against.
  if (document['schemaVersion'] !== 2) throw invalid(`${what} has another schema version than 2`)
  return document
}

/** A document with the members of both kinds is both to somebody (CVE-2021-41190). */
function refuseMembers(document: Members, names: readonly string[], what: string): void {
  for (const name of names) {
    if (Object.hasOwn(document, name)) throw invalid(`${what} has the member ${name}`)
  }
}

function parseLayer(value: Canonical): Layer {
  const descriptor = parseDescriptor(value, 'a layer')
  const packing = LAYER_TYPES.get(descriptor.mediaType)
  if (packing === undefined) {
    throw invalid(
      `a layer has the media type ${descriptor.mediaType.slice(0, 100)}, which is not supported`,
    )
  }
  return { ...descriptor, packing }
}

/** @throws ImageError */
export function parseManifest(bytes: Uint8Array, contentType: string): Manifest {
  const document = open(bytes, contentType, 'the manifest')
  refuseMembers(document, ['manifests', 'fsLayers'], 'the manifest')
  const config = parseDescriptor(document['config'], 'the configuration')
  if (config.mediaType !== OCI_CONFIG && config.mediaType !== DOCKER_CONFIG) {
    throw invalid(`it is not an image but ${config.mediaType.slice(0, 100)}`)
  }
  if (config.size > CONFIG_BYTES_MAX) {
    throw new ImageError(
      'IMAGE_TOO_LARGE',
      `The image's configuration is over ${CONFIG_BYTES_MAX} bytes.`,
    )
  }
  const layers = listOf(document['layers'], 'layers', LAYERS_MAX).map(parseLayer)
  if (layers.length === 0) throw invalid('the image has no layer')
  if (layers.reduce((sum, layer) => sum + layer.size, 0) > PACKED_BYTES_MAX) {
    throw new ImageError(
      'IMAGE_TOO_LARGE',
      `The image's layers are over ${PACKED_BYTES_MAX} bytes together.`,
    )
  }
  return { config, layers }
}

/** Whether an index entry is for this platform, in its plainest variant. */
function fits(members: Members): boolean {
  if (members['platform'] === undefined || members['platform'] === null) return false
  const platform = objectOf(members['platform'], 'a platform', ['os', 'architecture', 'variant'])
  const variant = optionalStringOf(platform['variant'], 'the variant of a platform')
  return (
    platform['os'] === PLATFORM.os &&
    platform['architecture'] === PLATFORM.architecture &&
    (variant === null || variant === '' || variant === 'v1')
  )
}

/**
 * The manifest for linux/amd64 that an index names. An index in an index is not followed.
 * @throws ImageError IMAGE_PLATFORM_MISSING
 */
export function chooseFromIndex(bytes: Uint8Array, contentType: string): Descriptor {
  const document = open(bytes, contentType, 'the index')
  refuseMembers(document, ['config', 'layers', 'fsLayers'], 'the index')
  const entries = listOf(document['manifests'], 'manifests', INDEX_ENTRIES_MAX)
  const chosen = entries.find((entry) => fits(descriptorMembers(entry, 'an entry of the index')))
  if (chosen === undefined) {
    throw new ImageError('IMAGE_PLATFORM_MISSING', 'The image has no manifest for linux/amd64.')
  }
  const descriptor = parseDescriptor(chosen, 'an entry of the index')
  if (!MANIFEST_TYPES.has(descriptor.mediaType)) {
    throw invalid('the index names something else than an image manifest for linux/amd64')
  }
  return descriptor
}
