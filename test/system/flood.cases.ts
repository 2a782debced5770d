/** An app that writes without end holds nobody up and fills nothing: the ring keeps the newest. */
import assert from 'node:assert/strict'
import { statSync } from 'node:fs'
import { suite, test } from 'node:test'
import type { Machine } from './harness.ts'
import { probe, start } from './launch.ts'

const LINE_BYTES = 64
const FLOOD_BYTES = 1 << 20
const RING_BYTES = 4 * 65_536

export function floodCases(machine: Machine): void {
  suite('system/flood', { concurrency: 1 }, () => {
    test('keeps the newest output of a flood, and its end arrives', async (t) => {
      const logBytes = RING_BYTES + 4096
      const args = probe('flood', String(FLOOD_BYTES), 'err', 'last words', 'exit', '6')
      const begin = process.hrtime.bigint()
      const running = await start(machine, { args, logBytes })
      const ended = await running.end()
      const ms = Number((process.hrtime.bigint() - begin) / 1_000_000n)
      t.diagnostic(`${FLOOD_BYTES} bytes in ${ms} ms, on ${machine.host.kvm ?? 'no'} KVM`)
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 6')
      assert.equal(ended.stderr, 'last words\n')
      assert.equal(statSync(running.prepared.logPath).size, logBytes)
      const lines = ended.stdout.split('\n').slice(0, -1)
      const numbers = lines.slice(-100).map(Number)
      const last = FLOOD_BYTES - LINE_BYTES
      assert.deepEqual(
        numbers,
        numbers.map((_, at) => last - (numbers.length - 1 - at) * LINE_BYTES),
      )
      assert.equal(numbers.length, 100)
      assert.ok(ended.stdout.length > RING_BYTES / 2 && ended.stdout.length <= RING_BYTES)
      const kinds = ended.events.map(({ kind }) => kind)
      assert.deepEqual(kinds, ['started', 'exit'], 'nothing of it passes through the agent')
    })
  })
}
