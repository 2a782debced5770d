/** Brings the layers of an image into the tenant's part of the blob store. */
/* oxlint-disable no-await-in-loop -- each lane pulls one layer after the other */
import type { TenantId } from '../../policy/index.ts'
import type { BlobStore } from './blob-store.ts'
import type { RegistryClient } from './registry/client.ts'
import type { ImageLayer } from './resolve.ts'

const LANES = 3

async function pullLayer(
  client: RegistryClient,
  store: BlobStore,
  tenant: TenantId,
  layer: ImageLayer,
): Promise<void> {
  if (await store.has(tenant, layer.digest, layer.size)) return
  const writer = await store.write(tenant, layer.digest)
  try {
    // Throws when the bytes turn out to be others, and then nothing is committed.
    await client.blob(layer, (chunk) => writer.write(chunk))
    await writer.commit()
  } finally {
    await writer.discard()
  }
}

/**
 * Layers that the tenant pulled before are not fetched again.
 * @throws ImageError IMAGE_DIGEST_MISMATCH, REGISTRY_*
 */
export async function pullLayers(
  client: RegistryClient,
  store: BlobStore,
  tenant: TenantId,
  layers: readonly ImageLayer[],
): Promise<void> {
  const waiting = [...new Map(layers.map((layer) => [layer.digest, layer])).values()]
  const lane = async (): Promise<void> => {
    for (let layer = waiting.shift(); layer !== undefined; layer = waiting.shift()) {
      await pullLayer(client, store, tenant, layer)
    }
  }
  await Promise.all(Array.from({ length: LANES }, lane))
}
