/**
 * No launch without a record: papers that are missing, altered, spent, late, or of another spec, host
 * or boot, at both walls. Spawn refuses them before it spends the ticket or makes anything; the VMM
 * refuses them before it makes a machine, also when somebody else than spawn starts it.
 */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { before as first, suite, test } from 'node:test'
import { systemClock } from '../../audit/index.ts'
import { leafHash } from '../../audit/merkle.ts'
import { recordBytes } from '../../audit/record.ts'
import { type Said, vmm, withDescriptors } from './by-hand.ts'
import { Forge } from './forge.ts'
import { type Machine, NODE_ID } from './harness.ts'
import {
  intent,
  type Loose,
  type Papers,
  type Prepared,
  papers,
  prepare,
  probe,
  refusal,
  submit,
} from './launch.ts'

const clock = systemClock()
const NO_DIGEST = `sha256:${'0'.repeat(64)}`
const second = 1_000_000_000n

/** A record of the launch as its log writes it, with members laid over head and body. */
function recordOf(prepared: Prepared, change: object): Buffer {
  const head = {
    id: clock.uuid(),
    time: clock.now(),
    clock: { boot_id: clock.bootId, boottime_ns: String(clock.boottimeNs()) },
    node: { id: NODE_ID, agent: { version: '0.0.0', digest: null }, config: null },
  }
  const body = { ...intent(prepared), ...change } as ReturnType<typeof intent>
  return recordBytes(head, body)
}

/** Papers with a good ticket for a record that is wrong in `change`. */
export function forged(machine: Machine, prepared: Prepared, change: object): Papers {
  const record = recordOf(prepared, change)
  const ticket = machine.forge.ticket(record)
  return { ticket, record: record.toString('utf8'), spec: prepared.spec.toString('utf8') }
}

/** The same log signs; the deadline is what it is. */
async function dueIn(machine: Machine, prepared: Prepared, ns: bigint): Promise<Papers> {
  const deadline = { boottime_ns: String(clock.boottimeNs() + ns) }
  const { index, bytes } = await machine.log.append({ ...intent(prepared), deadline } as never)
  const ticket = await machine.log.receipt(index)
  return { ticket, record: bytes.toString('utf8'), spec: prepared.spec.toString('utf8') }
}

const uuid = '01936f5e-0000-4000-8000-000000000000'

interface Scene {
  readonly machine: Machine
  readonly prepared: Prepared
  /** Good papers of this launch and of another. */
  readonly good: Papers
  readonly other: Papers
}
type Bend = (scene: Scene) => Papers | Promise<Papers>

const head =
  (change: object): Bend =>
  ({ machine, prepared }) =>
    forged(machine, prepared, change)

/** Replaces the first match, which must be there. */
function swap(text: string, from: RegExp | string, to: string): string {
  const changed = text.replace(from, to)
  assert.notEqual(changed, text)
  return changed
}

const signatureOf = (ticket: string): string => /\n(\u2014 [^\n]+)\n$/u.exec(ticket)?.[1] ?? ''

const bad: readonly (readonly [string, string, Bend])[] = [
  ['no ticket', 'TICKET_MISSING', ({ good }) => ({ ...good, ticket: '' })],
  ['no record', 'TICKET_MISSING', ({ good }) => ({ ...good, record: '' })],
  ['a ticket that is none', 'TICKET_MALFORMED', ({ good }) => ({ ...good, ticket: 'ticket' })],
  [
    'a ticket that is cut short',
    'TICKET_MALFORMED',
    ({ good }) => ({ ...good, ticket: good.ticket.slice(0, -1) }),
  ],
  [
    'a ticket of a log that this host does not know',
    'TICKET_KEY_UNKNOWN',
    ({ good }) => {
      const ticket = new Forge('casemate/nobody').ticket(Buffer.from(good.record))
      return { ...good, ticket }
    },
  ],
  [
    'a ticket of another key under the name of the log',
    'TICKET_KEY_UNKNOWN',
    ({ machine, good }) => {
      const ticket = new Forge(machine.log.origin).ticket(Buffer.from(good.record))
      return { ...good, ticket }
    },
  ],
  [
    'the signature of another checkpoint',
    'TICKET_SIGNATURE',
    ({ good, other }) => {
      const ticket = swap(good.ticket, signatureOf(good.ticket), signatureOf(other.ticket))
      return { ...good, ticket }
    },
  ],
  [
    'another index',
    'TICKET_NOT_INCLUDED',
    ({ good }) => ({ ...good, ticket: swap(good.ticket, /index \d+/u, 'index 0') }),
  ],
  [
    'the receipt of another record',
    'TICKET_NOT_INCLUDED',
    ({ good, other }) => ({ ...good, ticket: other.ticket }),
  ],
  [
    'a record of something else',
    'TICKET_RECORD',
    async ({ machine, good }) => {
      const { index, bytes } = await machine.log.append({
        type: 'agent.stop',
        pid: 1,
        reason: 'test',
      })
      const ticket = await machine.log.receipt(index)
      return { ...good, ticket, record: bytes.toString('utf8') }
    },
  ],
  ['a record of another host', 'TICKET_HOST', head({ node: { id: 'other' } })],
  ['a record of another boot', 'TICKET_BOOT', head({ clock: { boot_id: uuid, boottime_ns: '1' } })],
  [
    'a deadline that has passed',
    'TICKET_EXPIRED',
    ({ machine, prepared }) => dueIn(machine, prepared, 0n),
  ],
  [
    'a deadline too far ahead',
    'TICKET_TOO_FAR',
    ({ machine, prepared }) => dueIn(machine, prepared, 600n * second),
  ],
  [
    'the spec of another launch',
    'TICKET_SPEC_DIGEST',
    ({ good, other }) => ({ ...good, spec: other.spec }),
  ],
  ['a record of another tenant', 'SPEC_MISMATCH', head({ tenant: 'other' })],
  ['a record of another launch', 'SPEC_MISMATCH', head({ launch_id: clock.uuid() })],
  [
    'a record of another level',
    'SPEC_MISMATCH',
    ({ machine, prepared }) => {
      const { isolation } = intent(prepared) as unknown as { readonly isolation: object }
      return forged(machine, prepared, {
        isolation: { ...isolation, level: 'container', kvm: null },
      })
    },
  ],
  [
    'level container, on record, for a tenant that root did not list',
    'LEVEL_NOT_LISTED',
    async ({ machine }) => {
      const below = await prepare(machine, { args: probe() }, (spec) => {
        const [, ...others] = spec['descriptors'] as readonly Loose[]
        const nothing = { kernel: null, kvm: null, machine: null, template: null, vmm: null }
        const digests = { bundle: NO_DIGEST, digest: NO_DIGEST, runtime: NO_DIGEST }
        const container = { ...digests, memory_mib: 128 }
        Object.assign(spec, nothing, { level: 'container', container, descriptors: others })
      })
      const { isolation } = intent(below) as unknown as { readonly isolation: object }
      return forged(machine, below, {
        isolation: { ...isolation, level: 'container', kvm: null },
      })
    },
  ],
  [
    'the other class of KVM, on record',
    'KVM_CLASS',
    async ({ machine }) => {
      const kvm = machine.host.kvm === 'software' ? 'hardware' : 'software'
      const other = await prepare(machine, { args: probe() }, (spec) => {
        spec['kvm'] = kvm
      })
      const { isolation } = intent(other) as unknown as { readonly isolation: object }
      return forged(machine, other, { isolation: { ...isolation, kvm } })
    },
  ],
]

export function ticketCases(machine: Machine): void {
  suite('system/tickets', { concurrency: 1 }, () => {
    let scene: Scene
    const isSpent = ({ record }: Papers): boolean => {
      const name = leafHash(Buffer.from(record)).toString('hex')
      return readdirSync(path.join(machine.directory, 'run/spent')).includes(name)
    }

    first(async () => {
      const wish = { args: probe('exit', '7') }
      const prepared = await prepare(machine, wish)
      const another = await prepare(machine, wish)
      const other = await papers(machine, another)
      scene = { machine, prepared, other, good: await papers(machine, prepared) }
    })

    const byHand = (given: Papers): Promise<Said> =>
      withDescriptors(machine, scene.prepared, given, (good) => vmm(machine, good))

    for (const [what, code, bend] of bad) {
      test(`spawn and the VMM both refuse ${what}: ${code}`, async () => {
        const given = await bend(scene)
        assert.equal(await refusal(scene.prepared, given), code)
        assert.ok(!isSpent(given), 'a refused ticket is not spent')
        const said = await byHand(given)
        assert.equal(said.length, 1)
        assert.match(said[0] ?? '', new RegExp(`^FAILURE TICKET: ${code}: `, 'u'))
      })
    }

    test('refuses a ticket with any of its characters changed, and a record likewise', async () => {
      const { prepared, good } = scene
      const codes = new Map<string, number>()
      const alter = async (name: 'ticket' | 'record', step: number): Promise<void> => {
        const characters = good[name].split('')
        for (let at = 0; at < characters.length; at += step) {
          const changed = characters.with(at, characters[at] === 'A' ? 'B' : 'A').join('')
          const code = await refusal(prepared, { ...good, [name]: changed })
          codes.set(code, (codes.get(code) ?? 0) + 1)
        }
      }
      await alter('ticket', 1)
      await alter('record', 16)
      const expected = ['TICKET_KEY_UNKNOWN', 'TICKET_MALFORMED', 'TICKET_NOT_INCLUDED']
      assert.deepEqual([...codes.keys()].toSorted(), [...expected, 'TICKET_SIGNATURE'])
    })

    test('admits a ticket once', async () => {
      const prepared = await prepare(machine, { args: probe('exit', '7') })
      const given = await papers(machine, prepared)
      const running = await submit(prepared, given)
      assert.ok(isSpent(given))
      assert.equal(await refusal(prepared, given), 'POD_EXISTS')
      const { exit, pod } = await running.end()
      assert.equal(`${exit.how} ${exit.value}`, 'code 7')
      await machine.spawn.forget(pod)
      // Its deadline may have passed meanwhile, which is looked at first.
      const again = await refusal(prepared, given)
      assert.ok(['TICKET_SPENT', 'TICKET_EXPIRED'].includes(again), again)
    })

    test('a VMM started by hand does run what is in order, so that refusals say something', async () => {
      const prepared = await prepare(machine, { args: probe('exit', '7') })
      const given = await papers(machine, prepared)
      const said = await withDescriptors(machine, prepared, given, (good) => vmm(machine, good))
      assert.deepEqual(said, ['STARTED', 'READY', 'EXIT code 7'])
    })
  })
}
