/**
 * Level vm with a real KVM: one host, one template, and everything that is restored from it.
 * One file, because node:test runs files in processes of their own and a template costs a boot.
 *
 * A VMM that its own seccomp kills is in native/spawn/tests/spawn/life.rs: no VMM of ours can be
 * brought to make a call it may not make, so a program that does stands in for it there.
 */
import { after, suite, test } from 'node:test'
import { appCases } from './app.cases.ts'
import { appsCases } from './apps.cases.ts'
import { balloonCases } from './balloon.cases.ts'
import { callsCases } from './calls.cases.ts'
import { descriptorCases } from './descriptors.cases.ts'
import { execCases } from './exec.cases.ts'
import { floodCases } from './flood.cases.ts'
import { type Machine, openMachine, whyNot } from './harness.ts'
import { healthCases } from './health.cases.ts'
import { hostileCases, nonsenseCases } from './hostile.cases.ts'
import { jailCases } from './jail.cases.ts'
import { lifeCases } from './life.cases.ts'
import { mountCases } from './mounts.cases.ts'
import { networkCases } from './network.cases.ts'
import { processorsCases } from './processors.cases.ts'
import { ratesCases } from './rates.cases.ts'
import { resizeCases } from './resize.cases.ts'
import { restartCases } from './restart.cases.ts'
import { selfTestCases } from './self-test.cases.ts'
import { ticketCases } from './tickets.cases.ts'
import { uniqueCases } from './unique.cases.ts'
import { verityCases } from './verity.cases.ts'
import { volumeCases } from './volume.cases.ts'
import { waysCases } from './ways.cases.ts'
import { workerCases } from './workers.cases.ts'

type Group = readonly [name: string, add: (machine: Machine) => void]

/** Two at a time, as a machine has at least two processors; first the one with a template of its own. */
const groups: readonly Group[] = [
  ['hostile guest', hostileCases],
  ['guest that speaks nonsense', nonsenseCases],
  ['calls', callsCases],
  ['app', appCases],
  ['apps', appsCases],
  ['life', lifeCases],
  ['exec', execCases],
  ['health', healthCases],
  ['restart', restartCases],
  ['mounts', mountCases],
  ['volumes', volumeCases],
  ['processors', processorsCases],
  ['network', networkCases],
  ['ways', waysCases],
  ['balloon', balloonCases],
  ['verity', verityCases],
  ['unique', uniqueCases],
  ['tickets', ticketCases],
  ['jail', jailCases],
  ['workers', workerCases],
  ['flood', floodCases],
  ['rates', ratesCases],
  ['descriptors', descriptorCases],
  ['resize', resizeCases],
  ['self-test', selfTestCases],
]

const reason = whyNot()
if (reason === null) {
  const machine = await openMachine()
  after(() => machine.close())
  suite('system', { concurrency: 2 }, () => {
    for (const [, add] of groups) add(machine)
  })
} else {
  for (const [name] of groups) {
    suite(`system/${name}`, () => test('needs virtual machines', (t) => t.skip(reason)))
  }
}
