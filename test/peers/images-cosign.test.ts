/** The real cosign: what it signs we verify, what we sign it verifies, and what is changed neither. */
import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { after, before, suite, test } from 'node:test'
import {
  generateSigningKey,
  readSigningKey,
  type SignatureForm,
  type TrustedKey,
} from '../../agent/images/index.ts'
import { parseImageKey } from '../../policy/image-key.ts'
import { type FreshImage, freshImage } from './images-fresh.ts'
import { missing, must, type Peer, run, startDockerRegistry } from './images-programs.ts'

const PASSWORD = 'password of the test'
const FORMS: readonly SignatureForm[] = ['tag', 'bundle']
const LOOPBACK = ['--allow-insecure-registry', '--allow-http-registry']

const skip = missing('docker-registry', 'cosign')

suite('peers/images: cosign', { skip }, () => {
  let place = ''
  let registry: Peer | null = null
  let theirs: TrustedKey
  const inPlace = (name: string): string => path.join(place, name)

  before(async () => {
    place = mkdtempSync(path.join(tmpdir(), 'casemate-cosign-'))
    registry = await startDockerRegistry(place)
    const parameters = ['generate-key-pair', '--output-key-prefix', inPlace('theirs')]
    await must('cosign', parameters, { COSIGN_PASSWORD: PASSWORD })
    const pem = readFileSync(inPlace('theirs.pub'), 'utf8')
    theirs = parseImageKey({ id: 'theirs', pem }, { document: 'test', path: '' })
  })
  after(() => {
    registry?.stop()
    rmSync(place, { recursive: true, force: true })
  })

  const fresh = (): Promise<FreshImage> =>
    freshImage(registry?.host ?? assert.fail('no registry'), place)

  const cosignSign = (name: string, form: SignatureForm): Promise<Buffer> =>
    must(
      'cosign',
      [
        'sign',
        '--key',
        inPlace('theirs.key'),
        `--new-bundle-format=${String(form === 'bundle')}`,
        '--use-signing-config=false',
        '--tlog-upload=false',
        ...LOOPBACK,
        '-y',
        name,
      ],
      { COSIGN_PASSWORD: PASSWORD },
    )

  const cosignVerifies = async (
    name: string,
    form: SignatureForm,
    publicPem: string,
  ): Promise<boolean> => {
    writeFileSync(inPlace('verify.pub'), publicPem)
    const { code } = await run('cosign', [
      'verify',
      '--key',
      inPlace('verify.pub'),
      '--insecure-ignore-tlog=true',
      `--new-bundle-format=${String(form === 'bundle')}`,
      ...LOOPBACK,
      name,
    ])
    return code === 0
  }

  for (const form of FORMS) {
    test(`verifies what cosign signed: ${form}`, async () => {
      const { session, name } = await fresh()
      await cosignSign(name, form)
      const evidence = await session.collectEvidence([theirs])
      assert.deepEqual(
        evidence.map(({ form: found, keyId, verified, reason, digest }) => [
          found,
          keyId,
          verified,
          reason,
          digest,
        ]),
        [[form, theirs.keyId, true, 'verified', session.image.resolved.digest]],
      )
      const stranger = generateSigningKey()
      const other = [{ keyId: stranger.keyId, pem: stranger.publicPem }]
      assert.equal((await session.collectEvidence(other))[0]?.reason, 'no_key_matches')
      await session.close()
    })

    test(`signs what cosign verifies: ${form}`, async () => {
      const { session, name } = await fresh()
      const pair = generateSigningKey()
      await session.sign(readSigningKey(pair.privatePem, null), form)
      assert.equal(await cosignVerifies(name, form, pair.publicPem), true)
      assert.equal(await cosignVerifies(name, form, generateSigningKey().publicPem), false)
      await session.close()
    })

    test(`adds its signature to one of cosign, and both count for both: ${form}`, async () => {
      const { session, name } = await fresh()
      await cosignSign(name, form)
      const pair = generateSigningKey()
      await session.sign(readSigningKey(pair.privatePem, null), form)
      const ours = { keyId: pair.keyId, pem: pair.publicPem }
      const evidence = await session.collectEvidence([theirs, ours])
      assert.deepEqual(
        new Set(evidence.map(({ keyId }) => keyId)),
        new Set([theirs.keyId, pair.keyId]),
      )
      assert.equal(await cosignVerifies(name, form, theirs.pem), true)
      assert.equal(await cosignVerifies(name, form, pair.publicPem), true)
      await session.close()
    })
  }

  test('signs with a key file of cosign', async () => {
    const { session, name } = await fresh()
    const pem = readFileSync(inPlace('theirs.key'), 'utf8')
    const key = readSigningKey(pem, PASSWORD)
    assert.equal(key.keyId, theirs.keyId)
    assert.throws(() => readSigningKey(pem, 'another'), { code: 'SIGNING_KEY_INVALID' })
    await session.sign(key, 'tag')
    assert.equal(await cosignVerifies(name, 'tag', theirs.pem), true)
    await session.close()
  })

  test('does not take an attestation by the same key for a signature', async () => {
    const { session, name } = await fresh()
    writeFileSync(inPlace('predicate.json'), '{"a":1}')
    const parameters = [
      'attest',
      '--key',
      inPlace('theirs.key'),
      '--predicate',
      inPlace('predicate.json'),
      '--type',
      'custom',
      '--new-bundle-format=true',
      '--use-signing-config=false',
      '--tlog-upload=false',
      ...LOOPBACK,
      '-y',
      name,
    ]
    await must('cosign', parameters, { COSIGN_PASSWORD: PASSWORD })
    const evidence = await session.collectEvidence([theirs])
    assert.deepEqual(
      evidence.map(({ verified, reason }) => [verified, reason]),
      [[false, 'unsupported']],
    )
    await session.close()
  })
})
