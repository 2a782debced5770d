/**
 * One repository of one registry, on behalf of one tenant: the OCI distribution API as far as pulling
 * and signing need it. Made for one task and thrown away, so tokens never outlive or leave it.
 */
import type { Digest } from '../../../policy/index.ts'
import { DOCKER_LIST, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST } from '../descriptor.ts'
import { digestOfBytes } from '../document.ts'
import { ImageError } from '../errors.ts'
import { BLOB_MS, DOCUMENT_MS, MANIFEST_BYTES_MAX } from '../limits.ts'
import { nameOf } from '../reference.ts'
import { type RegistryAllowance, reachOf } from './address.ts'
import { authorize, type Credentials } from './authorize.ts'
import {
  discard,
  type Headers,
  type HttpAnswer,
  type HttpCall,
  headerOf,
  RegistryHttp,
} from './http.ts'
import { type Expected, readBody, statusError, streamBlob } from './read.ts'

export interface RepositoryName {
  readonly registry: string
  readonly repository: string
}

/** A manifest, index or anything else under /manifests/: bytes that are what `digest` says. */
export interface ManifestBytes {
  readonly bytes: Buffer
  readonly digest: Digest
  /** Content-Type without parameters. */
  readonly contentType: string
}

export interface ClientOptions {
  readonly name: RepositoryName
  readonly allowances: readonly RegistryAllowance[]
  readonly credentials: Credentials | null
  readonly access: 'pull' | 'pull,push'
}

const ACCEPT = [OCI_INDEX, OCI_MANIFEST, DOCKER_LIST, DOCKER_MANIFEST].join(', ')
/** Docker Hub's references name it differently from where its API and its token service are. */
const HUB = {
  reference: 'docker.io',
  api: 'registry-1.docker.io',
  tokens: 'https://auth.docker.io',
}

/** Origins whose token services may have a registry's credentials, without the provider's word. */
export const ownOriginsOf = (registry: string, url: URL): readonly string[] =>
  registry === HUB.reference ? [url.origin, HUB.tokens] : [url.origin]

type Ask = Pick<HttpCall, 'method' | 'url' | 'headers' | 'body'>

export class RegistryClient {
  readonly name: RepositoryName
  readonly #options: ClientOptions
  readonly #http: RegistryHttp
  #authorization: string | null = null

  constructor(options: ClientOptions) {
    this.name = options.name
    this.#options = options
    this.#http = new RegistryHttp(options.allowances)
  }

  close(): Promise<void> {
    return this.#http.close()
  }

  /** A URL under /v2/ of the repository. */
  url(path: string): URL {
    const { registry, repository } = this.name
    const host = registry === HUB.reference ? HUB.api : registry
    const scheme = reachOf(registry, this.#options.allowances) === 'insecure' ? 'http' : 'https'
    return new URL(`${scheme}://${host}/v2/${repository}/${path}`)
  }

  /** Sends; answers a challenge once. */
  async ask(ask: Ask, timeoutMs: number = DOCUMENT_MS): Promise<HttpAnswer> {
    const send = (): Promise<HttpAnswer> => {
      const own: Headers =
        this.#authorization === null ? {} : { authorization: this.#authorization }
      return this.#http.send({ ...ask, headers: { ...ask.headers, ...own }, timeoutMs })
    }
    const answer = await send()
    // A challenge of the place that a redirect led to is not the registry's to make.
    if (answer.status !== 401 || answer.url.origin !== ask.url.origin) return answer
    await discard(answer)
    const { allowances, credentials, access } = this.#options
    const { registry, repository } = this.name
    const scope = `repository:${repository}:${access}`
    const ownOrigins = ownOriginsOf(registry, ask.url)
    const context = { http: this.#http, allowances, credentials, ownOrigins, scope }
    const header = await authorize(answer, context)
    if (header === null || header === this.#authorization) return answer
    this.#authorization = header
    return send()
  }

  /**
   * The manifest of a tag or digest; null when there is none. What is asked by digest is that digest
   * or an error.
   */
  async manifest(reference: string): Promise<ManifestBytes | null> {
    const url = this.url(`manifests/${reference}`)
    const answer = await this.ask({ method: 'GET', url, headers: { accept: ACCEPT } })
    if (answer.status === 404) {
      await discard(answer)
      return null
    }
    if (answer.status !== 200) throw await statusError(answer, 'manifest')
    const contentType = (headerOf(answer, 'content-type') ?? '').split(';')[0]?.trim() ?? ''
    const announced = headerOf(answer, 'docker-content-digest')
    const bytes = await readBody(answer, MANIFEST_BYTES_MAX, 'a manifest')
    const digest = digestOfBytes(bytes)
    const asked = reference.includes(':') ? reference : announced
    if (asked?.startsWith('sha256:') === true && asked !== digest) {
      throw new ImageError(
        'IMAGE_DIGEST_MISMATCH',
        `The registry sends ${digest} for ${asked} of ${nameOf(this.name)}. The image was altered; do not run it.`,
      )
    }
    return { bytes, digest, contentType }
  }

  /** Streams a blob through `take`; see streamBlob for when it may be believed. */
  async blob(
    expected: Expected,
    take: (chunk: Buffer) => Promise<void> | void,
    timeoutMs: number = BLOB_MS,
  ): Promise<void> {
    const url = this.url(`blobs/${expected.digest}`)
    const answer = await this.ask({ method: 'GET', url, headers: {} }, timeoutMs)
    if (answer.status !== 200) throw await statusError(answer, `blob ${expected.digest}`)
    await streamBlob(answer, expected, take)
  }

  /** A small blob in memory. @throws ImageError IMAGE_TOO_LARGE before anything is fetched */
  async blobBytes(expected: Expected, max: number, what: string): Promise<Buffer> {
    if (expected.size > max) {
      throw new ImageError('IMAGE_TOO_LARGE', `The image has ${what} of more than ${max} bytes.`)
    }
    const chunks: Buffer[] = []
    await this.blob(expected, (chunk) => void chunks.push(chunk), DOCUMENT_MS)
    return Buffer.concat(chunks)
  }
}
