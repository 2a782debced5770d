/** A machine of more than one processor: the other template of the catalogue. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { Machine } from './harness.ts'
import { facts, probe, run } from './launch.ts'

export function processorsCases(machine: Machine): void {
  suite('system/processors', { concurrency: 1 }, () => {
    test('restores a machine with two processors, and both of them work', async () => {
      const { template } = await machine.spawn.template(2, 256)
      const shape = { vcpus: 2, memoryMib: 256 }
      const ended = await run(machine, { args: probe('facts', 'unique'), template, shape })
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 0', ended.notes)
      assert.equal(facts(ended.stdout).get('processors'), '2')
    })
  })
}
