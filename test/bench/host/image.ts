/** One signed image in a registry, and the rule that lets a tenant run it. */

import { OCI_MANIFEST } from '../../../agent/images/descriptor.ts'
import { createImages, readSigningKey, type SigningKeyPair } from '../../../agent/images/index.ts'
import { RegistryClient } from '../../../agent/images/registry/client.ts'
import { pushBlob, pushManifest } from '../../../agent/images/registry/push.ts'
import { parseTenantId } from '../../../policy/index.ts'
import { putImage } from '../../agent/images/support/image.ts'
import { TestRegistry } from '../../agent/images/support/registry.ts'
import { runWorkerInChild } from '../../agent/images/support/worker.ts'
import { busyboxTar, HELLO } from '../busybox.ts'

export const TENANT = 'acme'
const REPOSITORY = 'bench/hello'

/** Pushes busybox to `host`, a registry on loopback, signs it and returns its reference. */
export async function pushSigned(
  host: string,
  directory: string,
  keys: SigningKeyPair,
): Promise<string> {
  const allowances = [{ host, insecure: true }]
  const access = 'pull,push'
  const parts = new TestRegistry({ referrers: false, auth: 'none' })
  const config = { config: { Cmd: HELLO, Env: ['PATH=/bin'], WorkingDir: '/' } }
  const { manifest } = putImage(parts, { layers: [busyboxTar()], config })
  const name = { registry: host, repository: REPOSITORY }
  const client = new RegistryClient({ name, allowances, credentials: null, access })
  await Promise.all([...parts.blobs.values()].map((bytes) => pushBlob(client, bytes)))
  await pushManifest(client, '1', manifest, OCI_MANIFEST)
  await client.close()
  const images = createImages({ directory, allowances, runWorker: runWorkerInChild })
  const reference = `${host}/${REPOSITORY}:1`
  const tenant = parseTenantId(TENANT)
  const session = await images.resolve(reference, { tenant, credentials: null, access })
  await session.sign(readSigningKey(keys.privatePem, null), null)
  await session.close()
  return reference
}

/** Everything of that registry, signed by that key. */
export const imageRule = (host: string, keys: SigningKeyPair): object => ({
  schemaVersion: 1,
  default: 'deny',
  rules: [
    {
      name: 'bench',
      match: [`${host}/**`],
      require: {
        all: [
          {
            anyOf: [
              {
                type: 'cosign-key',
                keys: [{ id: 'bench', pem: keys.publicPem }],
                transparency: 'none',
                identityMatch: 'exactRepository',
              },
            ],
            threshold: 1,
          },
        ],
      },
    },
  ],
})
