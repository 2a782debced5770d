/**
 * Level container with a real OCI runtime, and without KVM: what all levels have in common, by the same tests as for
 * virtual machines, and what only containers can get wrong.
 */
import { after, suite, test } from 'node:test'
import { appCases } from './app.cases.ts'
import { appsCases } from './apps.cases.ts'
import { containerCases } from './container.cases.ts'
import { containerExecCases } from './container-exec.cases.ts'
import { containerNetworkCases } from './container-network.cases.ts'
import { copyCases } from './copy.cases.ts'
import { execCases } from './exec.cases.ts'
import { floodCases } from './flood.cases.ts'
import { type Machine, openMachine, whyNoContainers } from './harness.ts'
import { healthCases } from './health.cases.ts'
import { hostPathCases } from './host-paths.cases.ts'
import { lifeCases } from './life.cases.ts'
import { monitorCases } from './monitor.cases.ts'
import { mountCases } from './mounts.cases.ts'
import { networkCases } from './network.cases.ts'
import { programCases } from './programs.cases.ts'
import { redisCases } from './redis.cases.ts'
import { resizeCases } from './resize.cases.ts'
import { restartCases } from './restart.cases.ts'
import { volumeCases } from './volume.cases.ts'
import { waysCases } from './ways.cases.ts'

type Group = readonly [name: string, add: (machine: Machine) => void]

const groups: readonly Group[] = [
  ['app', appCases],
  ['apps', appsCases],
  ['life', lifeCases],
  ['exec', execCases],
  ['copy', copyCases],
  ['restart', restartCases],
  ['mounts', mountCases],
  ['volumes', volumeCases],
  ['host paths', hostPathCases],
  ['redis', redisCases],
  ['flood', floodCases],
  ['health', healthCases],
  ['resize', resizeCases],
  ['network', networkCases],
  ['ways', waysCases],
  ['monitor', monitorCases],
  ['container', containerCases],
  ['exec in a container', containerExecCases],
  ['programs', programCases],
  ['network of a container', containerNetworkCases],
]

const reason = whyNoContainers()
if (reason === null) {
  const machine = await openMachine('container')
  after(() => machine.close())
  suite('containers', { concurrency: 2 }, () => {
    for (const [, add] of groups) add(machine)
  })
} else {
  for (const [name] of groups) {
    suite(`containers/${name}`, () => test('needs an OCI runtime', (t) => t.skip(reason)))
  }
}
