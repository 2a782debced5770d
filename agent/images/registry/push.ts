/** Uploads: blobs in one piece, manifests by tag or digest. Small things only; images come by others. */
import { digestOfBytes } from '../document.ts'
import { ImageError } from '../errors.ts'
import type { RegistryClient } from './client.ts'
import { discard, type HttpAnswer, headerOf } from './http.ts'
import { statusError } from './read.ts'

/** Where an upload goes on: given by the registry, and only ever on the registry's own origin. */
function uploadUrl(answer: HttpAnswer, digest: string): URL {
  const url = URL.parse(headerOf(answer, 'location') ?? '', answer.url.href)
  if (url === null || url.origin !== answer.url.origin) {
    throw new ImageError(
      'REGISTRY_REFUSED',
      'The registry starts an upload at no place of its own.',
    )
  }
  url.searchParams.set('digest', digest)
  return url
}

/** Puts a blob there if it is not there already. */
export async function pushBlob(client: RegistryClient, bytes: Buffer): Promise<void> {
  const digest = digestOfBytes(bytes)
  const url = client.url(`blobs/${digest}`)
  const found = await client.ask({ method: 'HEAD', url, headers: {} })
  await discard(found)
  if (found.status === 200) return
  const start = await client.ask({ method: 'POST', url: client.url('blobs/uploads/'), headers: {} })
  if (start.status !== 202) throw await statusError(start, 'upload')
  await discard(start)
  const answer = await client.ask({
    method: 'PUT',
    url: uploadUrl(start, digest),
    headers: { 'content-type': 'application/octet-stream' },
    body: bytes,
  })
  if (answer.status !== 201) throw await statusError(answer, 'upload')
  await discard(answer)
}

/** @returns whether the registry took a `subject` into its referrers (OCI-Subject) */
export async function pushManifest(
  client: RegistryClient,
  reference: string,
  bytes: Buffer,
  mediaType: string,
): Promise<boolean> {
  const url = client.url(`manifests/${reference}`)
  const headers = { 'content-type': mediaType }
  const answer = await client.ask({ method: 'PUT', url, headers, body: bytes })
  if (answer.status !== 201) throw await statusError(answer, `manifest ${reference}`)
  await discard(answer)
  return headerOf(answer, 'oci-subject') !== null
}
