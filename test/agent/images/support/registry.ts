/**
 * An OCI registry in memory, for tests: pull, push, referrers where wanted, three kinds of
 * authentication, and a hook that answers instead of it, to misbehave.
 */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { TestContext } from 'node:test'

export interface Reply {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: Buffer | string
}

export interface Seen {
  readonly method: string
  /** Path with query. */
  readonly url: string
  readonly authorization: string | null
}

export interface RegistryOptions {
  readonly referrers: boolean
  readonly auth: 'none' | 'basic' | 'token'
}

export const USER = { username: 'acme', password: 'correct horse' }
const TOKEN = 'a-token-of-the-test-registry'

export const digestOf = (bytes: Uint8Array | string): string =>
  `sha256:${createHash('sha256').update(bytes).digest('hex')}`

interface Stored {
  readonly bytes: Buffer
  readonly type: string
}

const bodyOf = async (request: IncomingMessage): Promise<Buffer> => {
  const chunks: Buffer[] = []
  for await (const chunk of request as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks)
}

const json = (value: unknown): Buffer => Buffer.from(JSON.stringify(value))
const basicOf = ({ username, password }: typeof USER): string =>
  `Basic ${Buffer.from(`${username}:${password}`).toString('base64')}`

const ROUTE =
  /^\/v2\/(?<repository>.+)\/(?<kind>manifests|blobs|referrers)\/(?<reference>[^/]+(?:\/[^/]*)?)$/u

export class TestRegistry {
  readonly blobs: Map<string, Buffer> = new Map()
  /** By `repository/reference`. */
  readonly manifests: Map<string, Stored> = new Map()
  readonly seen: Seen[] = []
  /** Answers instead of the registry when it returns something. */
  intercept: (seen: Seen) => Reply | null = () => null
  readonly #options: RegistryOptions
  readonly #server: Server

  constructor(options: RegistryOptions) {
    this.#options = options
    this.#server = createServer((request, response) => {
      void this.#serve(request, response)
    })
  }

  /** Listens on a free port of loopback until the test ends. */
  static async start(
    context: TestContext,
    options: Partial<RegistryOptions> = {},
  ): Promise<TestRegistry> {
    const registry = new TestRegistry({ referrers: false, auth: 'none', ...options })
    await new Promise<void>((resolve) => {
      registry.#server.listen(0, '127.0.0.1', resolve)
    })
    context.after(() => {
      registry.#server.closeAllConnections()
      registry.#server.close()
    })
    return registry
  }

  get host(): string {
    const { port } = this.#server.address() as AddressInfo
    return `127.0.0.1:${port}`
  }

  addBlob(bytes: Buffer): string {
    const digest = digestOf(bytes)
    this.blobs.set(digest, bytes)
    return digest
  }

  /** Puts a manifest under its digest and, if given, a tag. Returns the digest. */
  addManifest(repository: string, bytes: Buffer, type: string, tag?: string): string {
    const digest = digestOf(bytes)
    this.manifests.set(`${repository}/${digest}`, { bytes, type })
    if (tag !== undefined) this.manifests.set(`${repository}/${tag}`, { bytes, type })
    return digest
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { method = 'GET', url = '/', headers } = request
    const seen = { method, url, authorization: headers.authorization ?? null }
    this.seen.push(seen)
    const body = await bodyOf(request)
    const reply =
      this.intercept(seen) ??
      this.#challenge(seen) ??
      this.#answer(seen, body, headers['content-type'] ?? '')
    const length = { 'content-length': String(Buffer.byteLength(reply.body ?? '')) }
    response.writeHead(reply.status, { ...length, ...reply.headers })
    response.end(method === 'HEAD' ? undefined : reply.body)
  }

  #challenge(seen: Seen): Reply | null {
    const { auth } = this.#options
    if (auth === 'none') return null
    if (seen.url.startsWith('/token')) {
      if (seen.authorization !== basicOf(USER)) return { status: 401 }
      return { status: 200, body: json({ token: TOKEN, expires_in: 60 }) }
    }
    const wanted = auth === 'basic' ? basicOf(USER) : `Bearer ${TOKEN}`
    if (seen.authorization === wanted) return null
    const challenge =
      auth === 'basic'
        ? 'Basic realm="test"'
        : `Bearer realm="http://${this.host}/token",service="test",scope="repository:x:pull"`
    return { status: 401, headers: { 'www-authenticate': challenge } }
  }

  #answer(seen: Seen, body: Buffer, type: string): Reply {
    const { pathname, searchParams } = new URL(seen.url, 'http://registry')
    const found = ROUTE.exec(pathname)
    const { repository = '', kind = '', reference = '' } = found?.groups ?? {}
    if (kind === 'blobs') return this.#blob(seen.method, reference, body, searchParams)
    if (kind === 'referrers') return this.#referrers(repository, reference)
    if (kind !== 'manifests') return { status: 404 }
    const name = `${repository}/${reference}`
    if (seen.method === 'PUT') return this.#putManifest(name, repository, { bytes: body, type })
    return this.#manifest(name)
  }

  #manifest(name: string): Reply {
    const stored = this.manifests.get(name)
    if (stored === undefined) return { status: 404 }
    return { status: 200, headers: { 'content-type': stored.type }, body: stored.bytes }
  }

  #blob(method: string, reference: string, body: Buffer, query: URLSearchParams): Reply {
    if (method === 'POST')
      return { status: 202, headers: { location: '/v2/x/blobs/uploads/1?a=b' } }
    if (method === 'PUT') {
      const isRight = this.addBlob(body) === query.get('digest') && query.get('a') === 'b'
      return { status: isRight ? 201 : 400 }
    }
    const bytes = this.blobs.get(reference)
    return bytes === undefined ? { status: 404 } : { status: 200, body: bytes }
  }

  #putManifest(name: string, repository: string, stored: Stored): Reply {
    this.manifests.set(name, stored)
    this.addManifest(repository, stored.bytes, stored.type)
    const isTaken = this.#options.referrers && stored.bytes.includes('"subject"')
    return { status: 201, headers: isTaken ? { 'oci-subject': 'taken' } : {} }
  }

  #referrers(repository: string, subject: string): Reply {
    if (!this.#options.referrers) return { status: 404 }
    const manifests = [...this.manifests].flatMap(([name, { bytes, type }]) => {
      if (!name.startsWith(`${repository}/sha256:`)) return []
      const document = JSON.parse(bytes.toString('utf8')) as {
        subject?: { digest?: string }
        artifactType?: string
      }
      if (document.subject?.digest !== subject) return []
      const { artifactType } = document
      return [{ mediaType: type, digest: digestOf(bytes), size: bytes.length, artifactType }]
    })
    const type = 'application/vnd.oci.image.index.v1+json'
    const index = json({ schemaVersion: 2, mediaType: type, manifests })
    return { status: 200, headers: { 'content-type': type }, body: index }
  }
}
