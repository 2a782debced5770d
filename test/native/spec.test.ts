/** The spec: canonical, complete, and different whenever anything it was made from is. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { suite, test } from 'node:test'
import { readDescription } from '../../native/spawn-answers.ts'
import { buildSpec, SPEC_BYTES_MAX, type SpecParts } from '../../native/spec.ts'
import { parseCanonical } from '../../policy/canonical.ts'
import { decide, type LaunchRequest, Refusal } from '../../policy/index.ts'
import { NO_NAMES } from '../../policy/nouns/names.ts'
import { DESCRIPTION } from '../agent/spawn-peer.ts'
import { defaults, question, request } from '../policy/fixtures.ts'
import { networkOf } from './networks.ts'

const host = readDescription(DESCRIPTION)
const digest = (digit: string): string => `sha256:${digit.repeat(64)}`
const SECCOMP = { digest: digest('7'), program: 'BgAAAAAA/38=' }

function partsOf(changes: Partial<LaunchRequest> = {}): SpecParts {
  const plan = decide(question({ request: request(changes) }), defaults)
  if (plan instanceof Refusal) throw plan
  return {
    plan,
    host,
    template: null,
    image: { size: 8192, verity: { data_blocks: 2, root: '11'.repeat(32), salt: '22' } },
    seccomp: SECCOMP,
    network: null,
    files: null,
    volumeSizes: [],
  }
}

/** Paths of every value of a document, as `apps.0.process.args.0`. */
function leaves(value: unknown, path = ''): readonly string[] {
  if (typeof value !== 'object' || value === null) return [path]
  return Object.entries(value).flatMap(([name, member]) => leaves(member, `${path}.${name}`))
}

suite('native/spec', () => {
  test('is canonical, with its own digest and every member of its version', () => {
    const { bytes, digest: own } = buildSpec(partsOf())
    assert.equal(own, `sha256:${createHash('sha256').update(bytes).digest('hex')}`)
    const spec = parseCanonical(bytes)
    const names =
      'apps container descriptors hostname kernel kvm launch_id level limits machine node sysctls template tenant v vmm'
    assert.deepEqual(Object.keys(Object(spec)), names.split(' '))
    assert.deepEqual(leaves(spec).filter((path) => path.includes('access')).length, 4)
  })

  test('has a container in the place of a machine at level container', () => {
    const [bundle, monitor, runtime] = ['a', 'b', 'c'].map(digest)
    const container = { bundle, digest: monitor, runtime, version: 'runc version 1.1.5' }
    const parts = partsOf()
    const plan = { ...parts.plan, level: 'container', kvm: null } as const
    const on = readDescription({ ...DESCRIPTION, container, container_reason: null })
    const spec = Object(parseCanonical(buildSpec({ ...parts, plan, host: on }).bytes))
    for (const name of ['kernel', 'kvm', 'machine', 'template', 'vmm']) {
      assert.equal(spec[name], null, name)
    }
    assert.deepEqual(spec.container, { bundle, digest: monitor, memory_mib: 128, runtime })
    const roles = spec.descriptors.map(({ role }: { role: string }) => role)
    assert.deepEqual(roles, ['image', 'scratch', 'log'])
    assert.throws(() => buildSpec({ ...parts, plan }), { code: 'CONTAINER_UNAVAILABLE' })
  })

  test('has a network and the tap for it, or neither', () => {
    const network = networkOf()
    const spec = Object(parseCanonical(buildSpec({ ...partsOf(), network }).bytes))
    assert.deepEqual(spec.network, network)
    assert.deepEqual(spec.descriptors.slice(4), [{ access: 'read-write', role: 'net' }])
    assert.equal(Object(parseCanonical(buildSpec(partsOf()).bytes)).descriptors.length, 4)
  })

  test('changes with everything it is made from', () => {
    const parts = partsOf()
    const template = {
      vcpus: 1,
      memory_mib: 128,
      memory: digest('8'),
      memory_size: 134_217_728,
      state: digest('9'),
      state_size: 16_384,
    }
    const variants: readonly SpecParts[] = [
      parts,
      partsOf({ args: ['other'] }),
      partsOf({ readOnlyRoot: true }),
      { ...parts, template },
      { ...parts, image: { ...parts.image, size: 12_288 } },
      { ...parts, host: { ...parts.host, scratch: { blocks: digest('0'), size: 1 << 20 } } },
      { ...parts, seccomp: { ...SECCOMP, digest: digest('0') } },
      { ...parts, seccomp: null },
      { ...parts, network: networkOf() },
      { ...parts, network: networkOf({ egress: { internet: true, rules: [] } }) },
      { ...parts, network: networkOf({ names: { ...NO_NAMES, search: ['a'] } }) },
      { ...parts, host: { ...host, node: 'other' } },
      { ...parts, host: { ...host, cmdline: 'other' } },
      { ...parts, host: { ...host, kernel: { ...host.kernel, digest: digest('0') } } },
      { ...parts, host: { ...host, vmm: { ...host.vmm, digest: digest('0') } } },
    ]
    const digests = new Set(variants.map((variant) => buildSpec(variant).digest))
    assert.equal(digests.size, variants.length)
    assert.equal(buildSpec(partsOf()).digest, buildSpec(parts).digest)
  })

  test('is refused when it is longer than spawn takes, before anything is recorded', () => {
    const parts = partsOf()
    const program = 'A'.repeat(SPEC_BYTES_MAX)
    assert.throws(() => buildSpec({ ...parts, seccomp: { ...SECCOMP, program } }), {
      code: 'SPEC_TOO_LARGE',
    })
  })
})
