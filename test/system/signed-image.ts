/** A signed image in a registry on loopback, and the rule that lets a tenant run it. */
import { OCI_MANIFEST } from '../../agent/images/descriptor.ts'
import { createImages, readSigningKey, type SigningKeyPair } from '../../agent/images/index.ts'
import { RegistryClient } from '../../agent/images/registry/client.ts'
import { pushBlob, pushManifest } from '../../agent/images/registry/push.ts'
import { parseTenantId } from '../../policy/index.ts'
import { putImage } from '../agent/images/support/image.ts'
import { TestRegistry } from '../agent/images/support/registry.ts'
import { runWorkerInChild } from '../agent/images/support/worker.ts'

export const TENANT = 'acme'

export interface ImageToPush {
  readonly repository: string
  /** Tar archives. */
  readonly layers: readonly Buffer[]
  /** The member `config` of the image's configuration. */
  readonly config: Readonly<Record<string, unknown>>
}

export interface Place {
  /** Host and port of the registry. */
  readonly host: string
  /** For the caches of who signs. */
  readonly directory: string
  readonly keys: SigningKeyPair
}

/** Pushes the image, signs it, and returns its reference. */
export async function pushSigned(
  { host, directory, keys }: Place,
  { repository, layers, config }: ImageToPush,
): Promise<string> {
  const allowances = [{ host, insecure: true }]
  const access = 'pull,push'
  const parts = new TestRegistry({ referrers: false, auth: 'none' })
  const { manifest } = putImage(parts, { layers, config: { config } })
  const name = { registry: host, repository }
  const client = new RegistryClient({ name, allowances, credentials: null, access })
  await Promise.all([...parts.blobs.values()].map((bytes) => pushBlob(client, bytes)))
  await pushManifest(client, '1', manifest, OCI_MANIFEST)
  await client.close()
  const images = createImages({ directory, allowances, runWorker: runWorkerInChild })
  const reference = `${host}/${repository}:1`
  const tenant = parseTenantId(TENANT)
  const session = await images.resolve(reference, { tenant, credentials: null, access })
  await session.sign(readSigningKey(keys.privatePem, null), null)
  await session.close()
  return reference
}

/** Everything of that registry, signed by that key. */
export function ruleOf(host: string, keys: SigningKeyPair): object {
  const authority = {
    type: 'cosign-key',
    keys: [{ id: 'release', pem: keys.publicPem }],
    transparency: 'none',
    identityMatch: 'exactRepository',
  }
  const require = { all: [{ anyOf: [authority], threshold: 1 }] }
  return {
    schemaVersion: 1,
    default: 'deny',
    rules: [{ name: 'all', match: [`${host}/**`], require }],
  }
}
