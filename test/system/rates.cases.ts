/** Rate limits of the devices, kept by a real VMM against a guest that wants more. */
import assert from 'node:assert/strict'
import { performance } from 'node:perf_hooks'
import { suite, test } from 'node:test'
import type { Machine } from './harness.ts'
import { type Loose, probe, start } from './launch.ts'

const KIB = 1024
/** Writes a second, at first and in one request of the guest's journal. */
const BYTES = { capacity: 64 * KIB, burst: 0, refill: 16 * KIB }
/** Reads: as rarely as a launch bears it. */
const OPERATIONS = { capacity: 1, burst: 0, refill: 1 }
const JOURNAL_BYTES = 64 * KIB
const FILL_BYTES = 160 * KIB

const slow = (spec: Loose): void => {
  const limits = spec['limits'] as Loose
  limits['rates'] = {
    disk_read: { bytes: null, operations: OPERATIONS },
    disk_write: { bytes: BYTES, operations: null },
    rng: null,
  }
}

export function ratesCases(machine: Machine): void {
  const { spawn } = machine
  suite('system/rates', { concurrency: 1 }, () => {
    test('reads and writes no faster than its limits, and does all that it was asked to', async () => {
      const args = probe('fill', String(FILL_BYTES), 'say', 'up', 'hold')
      const before = performance.now()
      const running = await start(machine, { args }, slow)
      const said = await running.says(/up/u)
      const { devices } = await spawn.metrics(running.pod)
      const seconds = (performance.now() - before) / 1000
      await spawn.kill(running.pod)
      await running.end()
      assert.match(said, /fill \/tmp\/fill ok/u)
      const of = (device: string, counter: string): number => devices[device]?.[counter] ?? -1
      const written = of('scratch', 'bytes_from_guest')
      const most = BYTES.capacity + JOURNAL_BYTES + BYTES.refill * seconds
      assert.ok(written >= FILL_BYTES && written <= most, `${written} bytes of ${most}`)
      const read = of('image', 'requests')
      const mostRead = OPERATIONS.capacity + OPERATIONS.refill * seconds
      assert.ok(read > 0 && read <= mostRead, `${read} requests of ${mostRead}`)
      assert.ok(of('scratch', 'throttled_ns') > 0)
      assert.ok(of('image', 'throttled_ns') > 0)
      assert.equal(of('rng', 'throttled_ns'), 0)
    })
  })
}
