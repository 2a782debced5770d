/** Brings the layers of an image into the tenant's part of the blob store. */
/* oxlint-disable no-await-in-loop -- each lane pulls one layer after the other */
import type { TenantId } from '../../policy/index.ts'
import type { Amount } from './amount.ts'
import type { BlobStore } from './blob-store.ts'
import type { RegistryClient } from './registry/client.ts'
import type { ImageLayer } from './resolve.ts'
import { orStorageFull, type Room } from './room.ts'

const LANES = 3

export interface PullPorts {
  readonly client: RegistryClient
  readonly blobs: BlobStore
  readonly room: Room
}

/** What of a pull is on disk. */
interface Written {
  bytes: number
  files: number
}

async function pullLayer(
  { client, blobs }: PullPorts,
  tenant: TenantId,
  layer: ImageLayer,
  written: Written,
): Promise<void> {
  const writer = await blobs.write(tenant, layer.digest)
  written.files += 1
  try {
    // Throws when the bytes turn out to be others, and then nothing is committed.
    await client.blob(layer, async (chunk) => {
      await writer.write(chunk)
      written.bytes += chunk.length
    })
    await writer.commit()
  } finally {
    await writer.discard()
  }
}

/** Each once, without those that the tenant has. */
async function missingLayers(
  blobs: BlobStore,
  tenant: TenantId,
  layers: readonly ImageLayer[],
): Promise<ImageLayer[]> {
  const distinct = [...new Map(layers.map((layer) => [layer.digest, layer])).values()]
  const had = await Promise.all(distinct.map(({ digest, size }) => blobs.has(tenant, digest, size)))
  return distinct.filter((_, index) => had[index] === false)
}

/**
 * Layers that the tenant pulled before are not fetched again. Room for the others, by the sizes that
 * the manifest declares, is reserved before the first byte comes; no blob may be longer than that.
 * @returns what was fetched
 * @throws ImageError IMAGE_DIGEST_MISMATCH, IMAGE_QUOTA_EXCEEDED, IMAGE_STORAGE_FULL, IMAGE_BUSY, REGISTRY_*
 */
export async function pullLayers(
  ports: PullPorts,
  tenant: TenantId,
  layers: readonly ImageLayer[],
): Promise<Amount> {
  const waiting = await missingLayers(ports.blobs, tenant, layers)
  const bytes = waiting.reduce((sum, { size }) => sum + size, 0)
  const written: Written = { bytes: 0, files: 0 }
  const need = { bytes, files: waiting.length }
  const reservation = await ports.room.take(tenant, need, () => written)
  const lane = async (): Promise<void> => {
    for (let layer = waiting.shift(); layer !== undefined; layer = waiting.shift()) {
      await pullLayer(ports, tenant, layer, written)
    }
  }
  const lanes = Array.from({ length: LANES }, lane)
  // One lane's failure does not end the others, and they still write.
  void Promise.allSettled(lanes).then(() => reservation.end())
  try {
    await Promise.all(lanes)
    return { ...written }
  } catch (error) {
    waiting.length = 0
    throw orStorageFull(error, bytes)
  }
}
