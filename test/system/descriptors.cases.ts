/**
 * Equal to what runs: a spec with any member changed is not the one on record, and a descriptor that
 * is not what the spec says ends the launch with the name of its role, at spawn or at the VMM.
 */
import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync, readSync, truncateSync, writeSync } from 'node:fs'
import { suite, test } from 'node:test'
import { memfdSealed } from '../../native/addon.ts'
import type { Template } from '../../native/spawn-answers.ts'
import { SpawnError } from '../../native/spawn-client.ts'
import { type Canonical, canonicalJson, parseCanonical } from '../../policy/canonical.ts'
import {
  type Descriptors,
  documentOf,
  type Role,
  type Said,
  scratchFile,
  vmm,
  withDescriptors,
} from './by-hand.ts'
import { type Machine, vmTemplate } from './harness.ts'
import {
  type Loose,
  type Papers,
  type Prepared,
  papers,
  prepare,
  probe,
  refusal,
  withFiles,
} from './launch.ts'
import { forged } from './tickets.cases.ts'

type Path = readonly string[]
type Change = (old: Canonical) => Canonical

/** Every place of a document that holds no further members; of lists of words the first alone. */
function* leaves(value: Canonical, at: Path = []): Generator<Path> {
  const inner = typeof value === 'object' && value !== null ? Object.entries(value) : []
  if (inner.length === 0) yield at
  const isWords = Array.isArray(value) && typeof value[0] !== 'object'
  for (const [name, member] of isWords ? inner.slice(0, 1) : inner) {
    yield* leaves(member, [...at, name])
  }
}

const other: Change = (value) => {
  if (typeof value === 'string') return value.endsWith('0') ? `${value.slice(0, -1)}1` : `${value}0`
  if (typeof value === 'number') return value + 1
  if (typeof value === 'boolean') return !value
  return value === null ? 0 : ['x']
}
const digest: Change = () => `sha256:${'0'.repeat(64)}`
const plus =
  (more: number): Change =>
  (value) =>
    Number(value) + more

/** A copy of a document with one place changed. */
function changed(document: Canonical, [name, ...rest]: Path, to: Change): Canonical {
  if (name === undefined) return to(document)
  const copy = structuredClone(document) as Loose
  copy[name] = changed(copy[name] ?? null, rest, to)
  return copy
}

/** Members that are on record and are not so: spawn's code, and what the VMM says by itself. */
const untrue: readonly (readonly [string, Change, string, RegExp | null])[] = [
  // Its own binary and a kernel it does not boot are nothing the VMM could look at.
  ['vmm.digest', digest, 'SPEC_NOT_OF_THIS_HOST', null],
  ['kernel.digest', digest, 'SPEC_NOT_OF_THIS_HOST', null],
  ['machine.cmdline', () => 'init=/bin/sh', 'SPEC_NOT_OF_THIS_HOST', null],
  ['vmm.filters.control', digest, 'SPEC_NOT_OF_THIS_HOST', /^FAILURE SECCOMP: the control filter/u],
  ['vmm.filters.io', digest, 'SPEC_NOT_OF_THIS_HOST', /^FAILURE SECCOMP: the io filter/u],
  ['vmm.filters.vcpu', digest, 'SPEC_NOT_OF_THIS_HOST', /^FAILURE SECCOMP: the vcpu filter/u],
  ['machine.vcpus', plus(1), 'SPEC_NOT_OF_THIS_HOST', /^FAILURE TEMPLATE_STATE: .*another shape/u],
  ['machine.memory_mib', plus(2), 'SPEC_MALFORMED', /^FAILURE TICKET: SPEC_MALFORMED: /u],
  [
    'template.state',
    digest,
    'SPEC_NOT_OF_THIS_HOST',
    /^FAILURE DESCRIPTOR: template state: is not the/u,
  ],
  [
    'template.state_size',
    plus(1),
    'SPEC_NOT_OF_THIS_HOST',
    /^FAILURE DESCRIPTOR: template state: has/u,
  ],
  ['template.memory', digest, 'SPEC_NOT_OF_THIS_HOST', null],
  ['descriptors.0.verity.root', () => '0'.repeat(64), 'SPEC_NOT_OF_THIS_HOST', null],
  ['descriptors.1.size', plus(4096), 'SPEC_MALFORMED', /^FAILURE TICKET: SPEC_MALFORMED: /u],
  [
    'descriptors.1.access',
    () => 'read-write',
    'SPEC_MALFORMED',
    /^FAILURE TICKET: SPEC_MALFORMED: /u,
  ],
  [
    'descriptors.2.blocks',
    digest,
    'SPEC_NOT_OF_THIS_HOST',
    /^FAILURE DESCRIPTOR: scratch: does not/u,
  ],
  ['descriptors.2.size', plus(4096), 'SPEC_NOT_OF_THIS_HOST', /^FAILURE DESCRIPTOR: scratch: has/u],
  ['descriptors.3.size', plus(4096), 'DESCRIPTOR', /^FAILURE DESCRIPTOR: log: has/u],
]

interface Scene {
  readonly machine: Machine
  readonly prepared: Prepared
  readonly given: Papers
  readonly template: Template
}

/** Opens what stands in for a descriptor. */
type Swap = (scene: Scene) => number

/** Changes one byte of a file. */
export function alter(path: string, at: number): void {
  const fd = openSync(path, 'r+')
  const byte = Buffer.alloc(1)
  readSync(fd, byte, 0, 1, at)
  writeSync(fd, Buffer.from([byte.readUInt8(0) ^ 1]), 0, 1, at)
  closeSync(fd)
}

/** The same memfd, opened as spawn hands it on. */
function readOnly(memfd: number): number {
  const fd = openSync(`/proc/self/fd/${memfd}`, 'r')
  closeSync(memfd)
  return fd
}

function sparse({ machine }: Scene, size: number): number {
  const place = machine.place('sparse')
  closeSync(openSync(place, 'w'))
  truncateSync(place, size)
  return openSync(place, 'r')
}

const init: Swap = ({ machine }) => openSync(machine.artifacts.init, 'r')
const image: Swap = ({ prepared }) => openSync(prepared.image.path, 'r')
const none = null

const swaps: readonly (readonly [Role, string, Swap | null, RegExp])[] = [
  [
    'document',
    'a file that can change',
    ({ machine, given }) => {
      const place = machine.place('document')
      const fd = openSync(place, 'w+')
      writeSync(fd, documentOf(machine, given))
      return fd
    },
    /^FAILURE DESCRIPTOR: launch document: is not sealed$/u,
  ],
  [
    'document',
    'garbage',
    () => memfdSealed('garbage', Buffer.from('{}')),
    /^FAILURE LAUNCH_DOCUMENT: /u,
  ],
  [
    'control',
    'nothing',
    none,
    /^casemate-vmm: Descriptor: control socket: descriptor 4 is missing$/u,
  ],
  ['stream', 'nothing', none, /^FAILURE DESCRIPTOR: pod stream: descriptor 5 is missing$/u],
  ['kvm', 'nothing', none, /^FAILURE DESCRIPTOR: \/dev\/kvm: descriptor 6 is missing$/u],
  ['kvm', '/dev/null', () => openSync('/dev/null', 'r+'), /^FAILURE KVM: /u],
  ['init', 'the image', image, /^FAILURE DESCRIPTOR: init: has \d+ bytes, not \d+$/u],
  [
    'init',
    'itself, to be written',
    ({ machine }) => openSync(machine.artifacts.init, 'r+'),
    /^FAILURE DESCRIPTOR: init: is not opened for Read$/u,
  ],
  [
    'state',
    'another of its size',
    ({ template }) => readOnly(memfdSealed('state', Buffer.alloc(template.state_size))),
    /^FAILURE DESCRIPTOR: template state: is not the file the spec names$/u,
  ],
  [
    'state',
    'a file that can change',
    (scene) => sparse(scene, scene.template.state_size),
    /^FAILURE DESCRIPTOR: template state: is not sealed$/u,
  ],
  [
    'memory',
    'a file that can change',
    (scene) => sparse(scene, scene.template.memory_size),
    /^FAILURE DESCRIPTOR: template memory: is not sealed$/u,
  ],
  [
    'memory',
    'another of another size',
    () => readOnly(memfdSealed('memory', Buffer.alloc(4096))),
    /^FAILURE DESCRIPTOR: template memory: has 4096 bytes, not \d+$/u,
  ],
  ['image', 'the init disk', init, /^FAILURE DESCRIPTOR: image: has \d+ bytes, not \d+$/u],
  [
    'image',
    '/dev/zero',
    () => openSync('/dev/zero', 'r'),
    /^FAILURE DESCRIPTOR: image: is not a regular file$/u,
  ],
  [
    'image',
    'itself, to be written',
    ({ prepared }) => openSync(prepared.image.path, 'r+'),
    /^FAILURE DESCRIPTOR: image: is not opened for Read$/u,
  ],
  [
    'scratch',
    'one that is not empty',
    ({ machine, prepared }) => {
      const place = scratchFile(machine, prepared)
      alter(place, 1100)
      return openSync(place, 'r+')
    },
    /^FAILURE DESCRIPTOR: scratch: does not hold the data the spec names$/u,
  ],
  [
    'scratch',
    'itself, read only',
    ({ machine, prepared }) => openSync(scratchFile(machine, prepared), 'r'),
    /^FAILURE DESCRIPTOR: scratch: is not opened for ReadWrite$/u,
  ],
  [
    'log',
    'the scratch disk',
    ({ machine, prepared }) => openSync(scratchFile(machine, prepared), 'r+'),
    /^FAILURE DESCRIPTOR: log: has \d+ bytes, not \d+$/u,
  ],
  [
    'log',
    'itself, read only',
    ({ prepared }) => openSync(prepared.logPath, 'r'),
    /^FAILURE DESCRIPTOR: log: is not opened for ReadWrite$/u,
  ],
]

export function descriptorCases(machine: Machine): void {
  const fresh = async (): Promise<Scene> => {
    const prepared = await prepare(machine, { args: probe() })
    const [given, template] = [await papers(machine, prepared), await vmTemplate(machine)]
    return { machine, prepared, given, template }
  }
  const byHand = (
    { prepared, given }: Pick<Scene, 'prepared' | 'given'>,
    change: Partial<Descriptors> = {},
  ): Promise<Said> =>
    withDescriptors(machine, prepared, given, (good) => vmm(machine, { ...good, ...change }))

  suite('system/descriptors', { concurrency: 1 }, () => {
    test('refuses a spec with any member changed after it was recorded, at both walls', async () => {
      const { prepared, given } = await fresh()
      const document = parseCanonical(prepared.spec)
      const places = [...leaves(document)]
      assert.ok(places.length > 60, `the spec has ${places.length} members`)
      for (const place of places) {
        const spec = canonicalJson(changed(document, place, other))
        const bent = { ...given, spec }
        assert.equal(await refusal(prepared, bent), 'TICKET_SPEC_DIGEST', place.join('.'))
      }
      // The VMM looks at the digest of the bytes as spawn does: one place of each kind is enough.
      for (const place of places.filter((_, at) => at % 8 === 0)) {
        const spec = canonicalJson(changed(document, place, other))
        const [said] = await byHand({ prepared, given: { ...given, spec } })
        assert.match(said ?? '', /^FAILURE TICKET: (TICKET_SPEC_DIGEST|TICKET_EXPIRED): /u)
      }
    })

    for (const [place, to, code, said] of untrue) {
      test(`refuses ${place} that is on record and is not so`, async () => {
        const prepared = await prepare(machine, { args: probe() }, (spec) => {
          Object.assign(spec, changed(spec, place.split('.'), to))
        })
        const given = forged(machine, prepared, {})
        assert.equal(await refusal(prepared, given), code)
        if (said === null) return
        const words = await byHand({ prepared, given })
        assert.match(words.at(-1) ?? '', said)
      })
    }

    test('refuses descriptors in another order, number or mode, naming the role', async () => {
      const { prepared, given } = await fresh()
      await withFiles(prepared, async (fds) => {
        const appending = openSync(prepared.logPath, 'a+')
        const wrong = [
          [{ image: fds.log }, /descriptor image /u],
          [{ log: fds.image }, /descriptor log /u],
          [{ log: appending }, /descriptor log must be opened for reading and writing/u],
        ] as const
        for (const [change, message] of wrong) {
          await assert.rejects(machine.spawn.launch({ ...given, ...fds, ...change }), (error) => {
            assert.ok(error instanceof SpawnError)
            assert.equal(error.code, 'DESCRIPTOR')
            assert.match(error.message, message)
            return true
          })
        }
        closeSync(appending)
      })
    })

    for (const [role, what, swap, said] of swaps) {
      test(`the VMM refuses ${what} for its ${role}`, async () => {
        const scene = await fresh()
        const fd = swap === null ? null : swap(scene)
        try {
          const words = await byHand(scene, { [role]: fd })
          assert.equal(words.length, 1, 'it says why, once, and starts nothing')
          assert.match(words[0] ?? '', said)
        } finally {
          if (fd !== null) closeSync(fd)
        }
      })
    }

    test('the VMM refuses another kernel for a cold boot', async () => {
      // The other descriptors are of a restored launch; a boot must not use up the ticket's time.
      await machine.template
      const prepared = await prepare(machine, { args: probe(), template: null })
      const scene = { prepared, given: await papers(machine, prepared) }
      const bytes = readFileSync(machine.artifacts.kernel)
      bytes[1 << 20] = (bytes[1 << 20] ?? 0) ^ 1
      const altered = memfdSealed('kernel', bytes)
      const kernels = [
        [openSync(`/proc/self/fd/${altered}`, 'r'), 'is not the file the spec names'],
        [altered, 'is not opened for Read'],
        [openSync(machine.artifacts.kernel, 'r'), 'is not sealed'],
      ] as const
      try {
        for (const [kernel, why] of kernels) {
          const said = await byHand(scene, { kernel, state: null, memory: null })
          assert.deepEqual(said, [`FAILURE DESCRIPTOR: kernel: ${why}`])
        }
      } finally {
        for (const [kernel] of kernels) closeSync(kernel)
      }
    })
  })
}
