/**
 * Level host: a process section in a mount namespace. What all levels have in common, by the same tests, and what only
 * this one has and has not. Networks and published ports are none of its own.
 */
import { after, suite, test } from 'node:test'
import { appCases } from './app.cases.ts'
import { execCases } from './exec.cases.ts'
import { floodCases } from './flood.cases.ts'
import { type Machine, openMachine, whyNoContainers } from './harness.ts'
import { healthCases } from './health.cases.ts'
import { hostCases } from './host.cases.ts'
import { lifeCases } from './life.cases.ts'
import { monitorCases } from './monitor.cases.ts'
import { mountCases } from './mounts.cases.ts'
import { redisCases } from './redis.cases.ts'
import { resizeCases } from './resize.cases.ts'
import { restartCases } from './restart.cases.ts'
import { volumeCases } from './volume.cases.ts'

type Group = readonly [name: string, add: (machine: Machine) => void]

const groups: readonly Group[] = [
  ['app', appCases],
  ['life', lifeCases],
  ['exec', execCases],
  ['restart', restartCases],
  ['mounts', mountCases],
  ['volumes', volumeCases],
  ['redis', redisCases],
  ['flood', floodCases],
  ['health', healthCases],
  ['resize', resizeCases],
  ['monitor', monitorCases],
  ['host', hostCases],
]

const reason = whyNoContainers()
if (reason === null) {
  const machine = await openMachine('host')
  after(() => machine.close())
  suite('level host', { concurrency: 2 }, () => {
    for (const [, add] of groups) add(machine)
  })
} else {
  for (const [name] of groups) {
    suite(`level host/${name}`, () => test('needs an OCI runtime', (t) => t.skip(reason)))
  }
}
