/** A machine of more than one processor: the other template of the catalogue. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import type { Machine } from './harness.ts'
import { facts, probe, start } from './launch.ts'
import { filtersOn } from './processes.ts'

export function processorsCases(machine: Machine): void {
  suite('system/processors', { concurrency: 1 }, () => {
    test('restores a machine with two processors, and both of them work', async () => {
      const { template } = await machine.spawn.template(2, 256)
      const shape = { vcpus: 2, memoryMib: 256 }
      const args = probe('say', 'up', 'line', 'facts', 'unique')
      const running = await start(machine, { args, template, shape })
      await running.says(/up/u)
      const threads = ['casemate-vmm', 'io', 'vcpu0', 'vcpu1']
      // Two programs of spawn's filter, that of the start, and the thread's own.
      const filtered = Object.fromEntries(threads.map((name) => [name, ['2', '4', '1']]))
      assert.deepEqual(filtersOn(running.pid), filtered)
      running.stream.stdin(Buffer.from('go on\n'))
      const ended = await running.end()
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 0', ended.notes)
      assert.equal(facts(ended.stdout).get('processors'), '2')
    })
  })
}
