/** Signatures fetched from registries: where they lie, how many, and what a registry can do to them. */
import assert from 'node:assert/strict'
import { suite, type TestContext, test } from 'node:test'
import { OCI_INDEX, OCI_MANIFEST } from '../../../agent/images/descriptor.ts'
import {
  type CheckedSignature,
  generateSigningKey,
  type ImageSession,
  readSigningKey,
  type SignatureForm,
} from '../../../agent/images/index.ts'
import { BUNDLE_TYPE } from '../../../agent/images/signatures/bundle.ts'
import {
  SIGNATURE_ANNOTATION,
  SIMPLE_SIGNING_TYPE,
} from '../../../agent/images/signatures/collect.ts'
import { defaultLayer, json, putImage, REPOSITORY } from './support/image.ts'
import { digestOf, TestRegistry } from './support/registry.ts'
import { open } from './support/session.ts'

const pair = generateSigningKey()
const key = readSigningKey(pair.privatePem, null)
const keys = [{ keyId: pair.keyId, pem: pair.publicPem }]

async function session(context: TestContext, registry: TestRegistry): Promise<ImageSession> {
  putImage(registry)
  return open(context, registry, { access: 'pull,push' })
}

const short = (evidence: readonly CheckedSignature[]): readonly unknown[] =>
  evidence.map(({ form, verified, reason }) => `${form} ${String(verified)} ${reason}`)

/** Puts a referrer by hand, and the index that names it. */
function putReferrer(
  registry: TestRegistry,
  subject: string,
  over: { manifest?: object; entry?: object } = {},
): void {
  const bundle = Buffer.from('{}')
  const layer = { mediaType: BUNDLE_TYPE, digest: registry.addBlob(bundle), size: 2 }
  const manifest = json({
    schemaVersion: 2,
    mediaType: OCI_MANIFEST,
    artifactType: BUNDLE_TYPE,
    config: layer,
    layers: [layer],
    subject: { mediaType: OCI_MANIFEST, digest: subject, size: 1 },
    ...over.manifest,
  })
  const digest = registry.addManifest(REPOSITORY, manifest, OCI_MANIFEST)
  const entry = {
    mediaType: OCI_MANIFEST,
    digest,
    size: manifest.length,
    artifactType: BUNDLE_TYPE,
    ...over.entry,
  }
  const index = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests: [entry] })
  registry.addManifest(REPOSITORY, index, OCI_INDEX, subject.replace(':', '-'))
}

const otherDigest = digestOf('another image')

suite('agent/images/evidence', () => {
  for (const referrers of [false, true]) {
    for (const form of ['tag', 'bundle'] satisfies SignatureForm[]) {
      test(`finds its own signature: ${form}, ${referrers ? 'with' : 'without'} referrers`, async (context) => {
        const registry = await TestRegistry.start(context, { referrers })
        const image = await session(context, registry)
        const signed = await image.sign(key, form)
        const evidence = await image.collectEvidence(keys)
        assert.deepEqual(short(evidence), [`${form} true verified`])
        assert.deepEqual(
          [evidence[0]?.artifact, evidence[0]?.keyId, evidence[0]?.digest],
          [signed.artifact, pair.keyId, image.image.resolved.digest],
        )
        const name = `${registry.host}/${REPOSITORY}`
        assert.equal(evidence[0]?.identity, form === 'tag' ? name : null)
      })
    }
  }

  test('signs in the form that the registry lists', async (context) => {
    for (const [referrers, form] of [
      [false, 'tag'],
      [true, 'bundle'],
    ] as const) {
      const image = await session(context, await TestRegistry.start(context, { referrers }))
      assert.equal((await image.sign(key, null)).form, form)
    }
  })

  test('keeps signatures of others when it adds its own, in both forms', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    const other = generateSigningKey()
    for (const form of ['tag', 'bundle'] satisfies SignatureForm[]) {
      await image.sign(readSigningKey(other.privatePem, null), form)
      await image.sign(key, form)
    }
    const both = [...keys, { keyId: other.keyId, pem: other.publicPem }]
    assert.deepEqual(
      (await image.collectEvidence(both)).map(({ keyId }) => keyId),
      [other.keyId, pair.keyId, other.keyId, pair.keyId],
    )
    assert.deepEqual(short(await image.collectEvidence(keys)), [
      'tag false no_key_matches',
      'tag true verified',
      'bundle false no_key_matches',
      'bundle true verified',
    ])
  })

  test('finds nothing where nobody signed', async (context) => {
    const image = await session(context, await TestRegistry.start(context))
    assert.deepEqual(await image.collectEvidence(keys), [])
  })

  test('does not take a signature that was copied from another image', async (context) => {
    const registry = await TestRegistry.start(context)
    const first = await session(context, registry)
    await first.sign(key, 'tag')
    const from = `${REPOSITORY}/${first.image.resolved.digest.replace(':', '-')}.sig`
    const stored = registry.manifests.get(from) ?? assert.fail('no signature')
    const other = putImage(registry, { layers: [defaultLayer('other')], tag: 'other' })
    registry.manifests.set(`${REPOSITORY}/${other.digest.replace(':', '-')}.sig`, stored)
    const second = await open(context, registry, {
      reference: `${registry.host}/${REPOSITORY}:other`,
    })
    assert.deepEqual(short(await second.collectEvidence(keys)), ['tag true digest_mismatch'])
  })

  test('lets a broken signature not spoil a good one', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    await image.sign(key, 'tag')
    await image.sign(key, 'bundle')
    const broken = registry.addBlob(Buffer.from('x'))
    const tag = `${REPOSITORY}/${image.image.resolved.digest.replace(':', '-')}.sig`
    const manifest = JSON.parse(registry.manifests.get(tag)?.bytes.toString('utf8') ?? '') as {
      layers: object[]
    }
    manifest.layers.unshift({
      mediaType: SIMPLE_SIGNING_TYPE,
      digest: broken,
      size: 100,
      annotations: { [SIGNATURE_ANNOTATION]: 'AAAA' },
    })
    registry.manifests.set(tag, { bytes: json(manifest), type: OCI_MANIFEST })
    assert.deepEqual(short(await image.collectEvidence(keys)), [
      'tag true verified',
      'bundle true verified',
      'tag false malformed',
    ])
  })

  const referrers: Readonly<Record<string, readonly [object, RegExp]>> = {
    'refers to another image': [
      { manifest: { subject: { mediaType: OCI_MANIFEST, digest: otherDigest, size: 1 } } },
      /refers to another image/u,
    ],
    'is of another type than the list says': [{ manifest: { artifactType: 'x' } }, /another type/u],
    'has another size than the list says': [{ entry: { size: 5 } }, /another size/u],
    'is not there': [{ entry: { digest: otherDigest } }, /not there/u],
    'has two layers': [{ manifest: { layers: [{}, {}] } }, /exactly one layer/u],
    'is an index as well': [{ manifest: { manifests: [] } }, /not an OCI manifest/u],
  }
  for (const [what, [over, detail]] of Object.entries(referrers)) {
    test(`does not count a referrer that ${what}`, async (context) => {
      const registry = await TestRegistry.start(context)
      const image = await session(context, registry)
      putReferrer(registry, image.image.resolved.digest, over)
      const evidence = await image.collectEvidence(keys)
      assert.deepEqual(short(evidence), ['bundle false malformed'])
      assert.match(evidence[0]?.detail ?? '', detail)
    })
  }

  test('passes over referrers of other kinds', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    const artifactType = 'application/vnd.cncf.notary.signature'
    putReferrer(registry, image.image.resolved.digest, { entry: { artifactType } })
    assert.deepEqual(await image.collectEvidence(keys), [])
  })
})

suite('agent/images/evidence: caps', () => {
  test('refuses an image with ten thousand referrers, quickly', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    const entry = {
      mediaType: OCI_MANIFEST,
      digest: otherDigest,
      size: 1,
      artifactType: BUNDLE_TYPE,
    }
    const manifests = Array.from({ length: 10_000 }, () => entry)
    const index = json({ schemaVersion: 2, mediaType: OCI_INDEX, manifests })
    const tag = image.image.resolved.digest.replace(':', '-')
    registry.addManifest(REPOSITORY, index, OCI_INDEX, tag)
    await assert.rejects(image.collectEvidence(keys), { code: 'IMAGE_TOO_LARGE' })
    assert.ok(registry.seen.length < 10)
  })

  test('refuses pages of referrers without end', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    const page = json({ schemaVersion: 2, manifests: [] })
    registry.intercept = ({ url }) =>
      url.includes('/referrers/')
        ? { status: 200, headers: { link: `<${url}&n=1>; rel="next"` }, body: page }
        : null
    await assert.rejects(image.collectEvidence(keys), { code: 'IMAGE_TOO_LARGE' })
  })

  test('does not follow pages to another registry', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    const page = json({ schemaVersion: 2, manifests: [] })
    registry.intercept = ({ url }) =>
      url.includes('/referrers/')
        ? { status: 200, headers: { link: '<http://127.0.0.1:1/v2/>; rel="next"' }, body: page }
        : null
    await assert.rejects(image.collectEvidence(keys), { code: 'IMAGE_MANIFEST_INVALID' })
  })

  test('refuses more than 64 signatures', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    const digest = registry.addBlob(Buffer.from('x'))
    const layer = { mediaType: SIMPLE_SIGNING_TYPE, digest, size: 1 }
    const manifest = json({
      schemaVersion: 2,
      mediaType: OCI_MANIFEST,
      layers: Array.from({ length: 65 }, () => layer),
    })
    const tag = `${image.image.resolved.digest.replace(':', '-')}.sig`
    registry.addManifest(REPOSITORY, manifest, OCI_MANIFEST, tag)
    await assert.rejects(image.collectEvidence(keys), { code: 'IMAGE_TOO_LARGE' })
  })

  test('does not fetch a signature of more than 1 MiB', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    const digest = registry.addBlob(Buffer.alloc(2 << 20))
    const layers = [{ mediaType: SIMPLE_SIGNING_TYPE, digest, size: 2 << 20 }]
    const manifest = json({ schemaVersion: 2, mediaType: OCI_MANIFEST, layers })
    const tag = `${image.image.resolved.digest.replace(':', '-')}.sig`
    registry.addManifest(REPOSITORY, manifest, OCI_MANIFEST, tag)
    assert.deepEqual(short(await image.collectEvidence(keys)), ['tag false malformed'])
    assert.equal(registry.seen.filter(({ url }) => url.includes(digest)).length, 0)
  })

  test('fails as a whole when the registry fails: nobody knows what it would have said', async (context) => {
    const registry = await TestRegistry.start(context)
    const image = await session(context, registry)
    await image.sign(key, 'tag')
    registry.intercept = ({ url }) =>
      url.includes('/referrers/') ? { status: 500, headers: { 'retry-after': '0' } } : null
    await assert.rejects(image.collectEvidence(keys), { code: 'REGISTRY_UNAVAILABLE' })
  })
})
