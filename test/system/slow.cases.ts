/** What is slow where KVM is software: two processors, which cost a template, and memory filled up. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { Machine } from './harness.ts'
import { facts, probe, run } from './launch.ts'

export function slowCases(machine: Machine): void {
  suite('system/slow', { concurrency: 1 }, () => {
    test('restores a machine with two processors, and both of them work', async () => {
      const template = await machine.spawn.template(2, 256)
      const shape = { vcpus: 2, memoryMib: 256 }
      const ended = await run(machine, { args: probe('facts', 'unique'), template, shape })
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 0', ended.notes)
      assert.equal(facts(ended.stdout).get('processors'), '2')
    })

    test('tells running out of memory from a signal', async () => {
      const { exit, console } = await run(machine, { args: probe('eat') })
      assert.equal(`${exit.how} ${exit.value} ${exit.cause}`, 'oom 9 APP_OOM', console)
    })
  })
}
