/**
 * Level vm with a real KVM: one host, one template, and everything that is restored from it.
 * One file, because node:test runs files in processes of their own and a template costs a boot.
 *
 * A VMM that its own seccomp kills is in native/spawn/tests/spawn/life.rs: no VMM of ours can be
 * brought to make a call it may not make, so a program that does stands in for it there.
 */
import { after, suite, test } from 'node:test'
import { appCases } from './app.cases.ts'
import { descriptorCases } from './descriptors.cases.ts'
import { floodCases } from './flood.cases.ts'
import { type Machine, openMachine, whyNot } from './harness.ts'
import { hostileCases } from './hostile.cases.ts'
import { jailCases } from './jail.cases.ts'
import { lifeCases } from './life.cases.ts'
import { slowCases } from './slow.cases.ts'
import { ticketCases } from './tickets.cases.ts'
import { uniqueCases } from './unique.cases.ts'
import { verityCases } from './verity.cases.ts'

type Group = readonly [name: string, add: (machine: Machine) => void]

const groups: readonly Group[] = [['unique', uniqueCases]]

/** Minutes each with software KVM. */
const longGroups: readonly Group[] = [
  ['jail', jailCases],
  ['life', lifeCases],
  ['app', appCases],
  ['tickets', ticketCases],
  ['descriptors', descriptorCases],
  ['verity', verityCases],
  ['flood', floodCases],
  ['hostile guest', hostileCases],
  ['two processors', slowCases],
]

const long = process.env['CASEMATE_TEST_LONG'] === '1'

function skipAll(left: readonly Group[], reason: string): void {
  for (const [name] of left) {
    suite(`system/${name}`, () => test('needs virtual machines', (t) => t.skip(reason)))
  }
}

const reason = whyNot()
if (reason === null) {
  const machine = await openMachine()
  after(() => machine.close())
  for (const [, add] of long ? [...groups, ...longGroups] : groups) add(machine)
  if (!long) skipAll(longGroups, 'takes minutes: CASEMATE_TEST_LONG=1 runs it')
} else {
  skipAll([...groups, ...longGroups], reason)
}
