/** Fresh images in a real registry, for tests that sign them. */
import path from 'node:path'
import { type Credentials, createImages, type ImageSession } from '../../agent/images/index.ts'
import { RegistryClient } from '../../agent/images/registry/client.ts'
import { pushBlob, pushManifest } from '../../agent/images/registry/push.ts'
import { parseTenantId } from '../../policy/index.ts'
import { defaultLayer, putImage } from '../agent/images/support/image.ts'
import { TestRegistry } from '../agent/images/support/registry.ts'
import { runWorkerInChild } from '../agent/images/support/worker.ts'

export interface FreshImage {
  /** Opened for pulling and pushing. */
  readonly session: ImageSession
  /** Host, repository and tag. */
  readonly tagged: string
  /** Host, repository and digest. */
  readonly name: string
}

let count = 0

/** Pushes an image that nobody has yet to `host`, a registry on loopback, and opens it. */
export async function freshImage(
  host: string,
  place: string,
  credentials: Credentials | null = null,
): Promise<FreshImage> {
  count += 1
  const repository = `demo/app${count}`
  const allowances = [{ host, insecure: true }]
  const parts = new TestRegistry({ referrers: false, auth: 'none' })
  const { manifest } = putImage(parts, { layers: [defaultLayer(repository)] })
  const access = 'pull,push'
  const name = { registry: host, repository }
  const client = new RegistryClient({ name, allowances, credentials, access })
  await Promise.all([...parts.blobs.values()].map((bytes) => pushBlob(client, bytes)))
  await pushManifest(client, '1', manifest, 'application/vnd.oci.image.manifest.v1+json')
  await client.close()
  const directory = path.join(place, 'agent')
  const images = createImages({ directory, allowances, runWorker: runWorkerInChild })
  const tagged = `${host}/${repository}:1`
  const tenant = parseTenantId('acme')
  const session = await images.resolve(tagged, { tenant, credentials, access })
  return { session, tagged, name: `${host}/${repository}@${session.image.resolved.digest}` }
}
