/** Decisions and signatures: pure functions, called as a launch calls them. */
import { readFileSync } from 'node:fs'
import path from 'node:path'
import { checkSignatures } from '../../agent/images/signatures/check.ts'
import type { FoundSignature, TrustedKey } from '../../agent/images/signatures/found.ts'
import { parseImageKey } from '../../policy/image-key.ts'
import { decide, Refusal } from '../../policy/index.ts'
import { digestOf } from '../native/workers/rootfs/build-image.ts'
import { defaults, host, question, request } from '../policy/fixtures.ts'
import { type Figure, figure } from './figures.ts'
import { samplesUs } from './timing.ts'

const WARM_UP = 200
const DECISIONS = 1000
const SIGNATURES = 1000

/** An untrusted tenant's ordinary launch, and the refusal of the level it may not have. */
export function measurePolicy(): readonly Figure[] {
  const facts = host({ kvm: 'hardware' })
  const allowed = question({ host: facts })
  const refused = question({ host: facts, request: request({ isolation: 'container' }) })
  if (decide(allowed, defaults) instanceof Refusal) throw new Error('the launch was refused')
  if (!(decide(refused, defaults) instanceof Refusal)) throw new Error('the launch was allowed')
  const decisions = (asked: typeof allowed): readonly number[] =>
    samplesUs(WARM_UP, DECISIONS, () => {
      decide(asked, defaults)
    })
  return [
    figure('policy.decide.allowed', 'us', decisions(allowed)),
    figure('policy.decide.refused', 'us', decisions(refused)),
  ]
}

const vectors = path.resolve(import.meta.dirname, '../vectors/images/cosign-3.1.3')
const read = (name: string): Buffer => readFileSync(path.join(vectors, name))

function verifying(found: FoundSignature, key: TrustedKey, digest: string): readonly number[] {
  const check = (): void => {
    const [checked] = checkSignatures({ found: [found], keys: [key], digest })
    if (checked?.verified !== true) throw new Error(`the signature does not verify: ${found.form}`)
  }
  return samplesUs(WARM_UP, SIGNATURES, check)
}

/** What the real cosign wrote, in both forms that it writes, under one key. */
export function measureSignatures(): readonly Figure[] {
  const digest = read('digest').toString('utf8').trim()
  const pem = read('cosign.pub').toString('utf8')
  const key = parseImageKey({ id: 'bench', pem }, { document: 'bench', path: '' })
  const [payload, bundle] = [read('payload'), read('bundle')]
  const signature = read('payload.sig').toString('utf8').trim()
  const tag = { form: 'tag', artifact: digestOf(payload), bytes: payload, signature } as const
  const attached = {
    form: 'bundle',
    artifact: digestOf(bundle),
    bytes: bundle,
    signature: null,
  } as const
  return [
    figure('signature.verify.tag', 'us', verifying(tag, key, digest)),
    figure('signature.verify.bundle', 'us', verifying(attached, key, digest)),
  ]
}
