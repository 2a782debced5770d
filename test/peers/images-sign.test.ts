/** Our signatures in Debian's docker-registry, which lists no referrers. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, suite, test } from 'node:test'
import { OCI_MANIFEST } from '../../agent/images/descriptor.ts'
import { generateSigningKey, readSigningKey } from '../../agent/images/index.ts'
import { type FreshImage, freshImage } from './images-fresh.ts'
import { missing, type Peer, run, startDockerRegistry } from './images-programs.ts'

const pair = generateSigningKey()
const key = readSigningKey(pair.privatePem, null)
const keys = [{ keyId: pair.keyId, pem: pair.publicPem }]

suite('peers/images: signatures', { skip: missing('docker-registry') }, () => {
  let place = ''
  let registry: Peer | null = null

  before(async () => {
    place = mkdtempSync(path.join(tmpdir(), 'casemate-sign-'))
    registry = await startDockerRegistry(place)
  })
  after(() => {
    registry?.stop()
    rmSync(place, { recursive: true, force: true })
  })
  const fresh = (): Promise<FreshImage> =>
    freshImage(registry?.host ?? assert.fail('no registry'), place)

  test('takes both forms and gives them back', async () => {
    const { session } = await fresh()
    assert.deepEqual(await session.collectEvidence(keys), [])
    assert.equal((await session.sign(key, null)).form, 'tag')
    await session.sign(key, 'bundle')
    assert.deepEqual(
      (await session.collectEvidence(keys)).map(({ form, verified }) => [form, verified]),
      [
        ['tag', true],
        ['bundle', true],
      ],
    )
    await session.close()
  })

  // Debian's skopeo is built without sigstore, so openssl is the second opinion on the bytes.
  test('stores a payload and a signature that openssl verifies', {
    skip: missing('openssl'),
  }, async () => {
    const { session, tagged } = await fresh()
    const { artifact } = await session.sign(key, 'tag')
    const repository = `http://${tagged.replace(/\/(.*):1$/u, '/v2/$1')}`
    const tag = `${session.image.resolved.digest.replace(':', '-')}.sig`
    const headers = { accept: OCI_MANIFEST }
    const read = async (url: string): Promise<Buffer> =>
      Buffer.from(await (await fetch(url, { headers })).arrayBuffer())
    const manifest = (await read(`${repository}/manifests/${tag}`)).toString('utf8')
    const signature = /"dev\.cosignproject\.cosign\/signature":"([^"]+)"/u.exec(manifest)?.[1] ?? ''
    const file = (name: string, bytes: Buffer | string): string => {
      writeFileSync(path.join(place, name), bytes)
      return path.join(place, name)
    }
    const parameters = [
      'dgst',
      '-sha256',
      '-verify',
      file('key.pub', pair.publicPem),
      '-signature',
      file('signature', Buffer.from(signature, 'base64')),
      file('payload', await read(`${repository}/blobs/${artifact}`)),
    ]
    assert.equal((await run('openssl', parameters)).code, 0)
    file('payload', 'another payload')
    assert.notEqual((await run('openssl', parameters)).code, 0)
    await session.close()
  })
})
