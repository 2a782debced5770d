/**
 * Images, from a reference to a root image: what agent/tasks/launch.ts calls, in this order. Nothing
 * of a tenant is unpacked before the policy has seen the evidence.
 */
import type { TenantId } from '../../policy/index.ts'
import type { Amount } from './amount.ts'
import { Builder, type RunWorker, rootImageKey } from './build.ts'
import { Caches, type OnEvicted, type OpenRootImages, type UnusedImages } from './caches.ts'
import { ImageError } from './errors.ts'
import type { SigningKey } from './keys.ts'
import { CHECK_MS } from './limits.ts'
import { pullLayers } from './pull.ts'
import { parseReference } from './reference.ts'
import type { RegistryAllowance } from './registry/address.ts'
import type { Credentials } from './registry/authorize.ts'
import { RegistryClient } from './registry/client.ts'
import { type Image, resolveImage } from './resolve.ts'
import type { Rootfs } from './rootfs-store.ts'
import { runTask } from './run.ts'
import { type SignatureForm, type Signed, signImage } from './sign.ts'
import { collectSignatures } from './signatures/collect.ts'
import type { BrokenSignature, CheckedSignature, TrustedKey } from './signatures/found.ts'

export type { RunWorker } from './build.ts'
export type { OnEvicted, OpenRootImage, OpenRootImages, UnusedImages } from './caches.ts'
export type { ProcessFacts } from './config.ts'
export { IMAGE_ERROR_CODES, ImageError, type ImageErrorCode } from './errors.ts'
export { generateSigningKey, readSigningKey, type SigningKey, type SigningKeyPair } from './keys.ts'
export { formatReference, nameOf, parseReference, type Reference } from './reference.ts'
export type { RegistryAllowance } from './registry/address.ts'
export type { Credentials } from './registry/authorize.ts'
export type { Image, ImageLayer } from './resolve.ts'
export { floorOf } from './room.ts'
export type { Rootfs } from './rootfs-store.ts'
export type { SignatureForm, Signed } from './sign.ts'
export type { CheckedSignature, TrustedKey } from './signatures/found.ts'

export interface ImagesPorts {
  /** Private to the agent; holds blobs and root images. */
  readonly directory: string
  /** Registries that the provider vouches for. */
  readonly allowances: readonly RegistryAllowance[]
  readonly runWorker: RunWorker
  /** Asked when room is given out: what pods have open is not deleted, and counts. Without it none is. */
  readonly openRootImages?: OpenRootImages
  /** Told what was deleted of whose. */
  readonly onEvicted?: OnEvicted
}

/** An image being worked on for one tenant: the connection to its registry goes with it. */
export interface ImageSession {
  readonly image: Image
  /** Signatures found, checked against `keys`. Policy decides what they are worth. */
  collectEvidence(keys: readonly TrustedKey[]): Promise<readonly CheckedSignature[]>
  /** Layers into the tenant's store; what of them was fetched. */
  pullLayers(): Promise<Amount>
  /** After pullLayers. @param devices keep device nodes: at level vm only */
  buildRootfs(devices: boolean): Promise<Rootfs>
  /** @param form null: as the registry has it */
  sign(key: SigningKey, form: SignatureForm | null): Promise<Signed>
  /** Open the root image before this: afterwards the cache may drop it. */
  close(): Promise<void>
}

export interface ResolveOptions {
  readonly tenant: TenantId
  readonly credentials: Credentials | null
  /** Signing needs to push. */
  readonly access: 'pull' | 'pull,push'
}

export interface Images {
  /** @throws ImageError */
  resolve(reference: string, options: ResolveOptions): Promise<ImageSession>
  /** Deletes what nobody has used for so long, ms, or only says what that is. */
  collect(unusedMs: number, dryRun: boolean): Promise<readonly UnusedImages[]>
  /** Deletes all of a tenant's, which has no pods. */
  forget(tenant: TenantId): Promise<void>
}

/** Sessions of one tenant at once; the rest of the agent is for the other tenants. */
const SESSIONS_MAX = 8

const brokenEvidence = ({ form, artifact, detail }: BrokenSignature): CheckedSignature => ({
  kind: 'cosign-key',
  keyId: null,
  form,
  digest: null,
  identity: null,
  artifact,
  verified: false,
  reason: 'malformed',
  payload: null,
  detail,
})

async function collectEvidence(
  client: RegistryClient,
  { resolved: { digest } }: Image,
  keys: readonly TrustedKey[],
): Promise<readonly CheckedSignature[]> {
  const { found, broken } = await collectSignatures(client, digest)
  const payloads = found.reduce((sum, { bytes }) => sum + bytes.length, 0)
  // A check costs about as much as parsing 1 KiB, and there is one for each key and signature.
  const bytes = payloads + found.length * keys.length * 1024
  const checked = await runTask(
    'checkSignatures',
    { found, keys, digest },
    { bytes, timeoutMs: CHECK_MS },
  )
  return [...checked, ...broken.map(brokenEvidence)]
}

/** Counts what is under way for each tenant, within SESSIONS_MAX. */
class Sessions {
  readonly #open = new Map<TenantId, number>()

  begin(tenant: TenantId): void {
    const open = this.#open.get(tenant) ?? 0
    if (open >= SESSIONS_MAX) {
      const message = `The tenant has ${SESSIONS_MAX} images under way already. Try again later.`
      throw new ImageError('IMAGE_BUSY', message)
    }
    this.#open.set(tenant, open + 1)
  }

  end(tenant: TenantId): void {
    const open = (this.#open.get(tenant) ?? 0) - 1
    if (open > 0) this.#open.set(tenant, open)
    else this.#open.delete(tenant)
  }
}

const nothing = (): void => undefined

/** All files of an image in the tenant's caches, there or not. */
const placesOf = ({ blobs, rootfs }: Caches, tenant: TenantId, { layers }: Image): string[] => [
  ...layers.map(({ digest }) => blobs.placeOf(tenant, digest)),
  ...[true, false].map((devices) => rootfs.placeOf(tenant, rootImageKey(layers, devices))),
]

export function createImages(ports: ImagesPorts): Images {
  const { allowances, runWorker } = ports
  const caches = new Caches(
    ports.directory,
    ports.openRootImages ?? (() => Promise.resolve([])),
    ports.onEvicted ?? nothing,
  )
  const { blobs, rootfs, room } = caches
  const builder = new Builder({ blobs, rootfs, room, runWorker })
  const sessions = new Sessions()
  const end = async (
    tenant: TenantId,
    client: RegistryClient,
    release: () => void,
  ): Promise<void> => {
    release()
    sessions.end(tenant)
    await client.close()
  }
  return {
    collect: (unusedMs, dryRun) => caches.collect(unusedMs, dryRun),
    forget: (tenant) => caches.forget(tenant),
    resolve: async (text, { tenant, credentials, access }) => {
      const reference = parseReference(text)
      const { registry, repository } = reference
      sessions.begin(tenant)
      const name = { registry, repository }
      const client = new RegistryClient({ name, allowances, credentials, access })
      let ended: Promise<void> | null = null
      let release = nothing
      const close = (): Promise<void> => (ended ??= end(tenant, client, release))
      try {
        const image = await resolveImage(client, reference)
        release = await caches.use(tenant, placesOf(caches, tenant, image))
        return {
          image,
          collectEvidence: (keys) => collectEvidence(client, image, keys),
          pullLayers: () => pullLayers({ client, blobs, room }, tenant, image.layers),
          buildRootfs: (devices) => builder.build(image.layers, { tenant, devices }),
          sign: (key, form) => signImage(client, image.target, key, form),
          close,
        }
      } catch (error) {
        await close()
        throw error
      }
    },
  }
}
