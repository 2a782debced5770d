/** More disk for a guest that runs, by way of spawn, VMM, interrupt, guest-init and ext4. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import type { Machine } from './harness.ts'
import { probe, start } from './launch.ts'

const MIB = 2 ** 20
const KEPT = 128 * 1024
/** More than the disk has at first, and less than it has then. */
const CLAIMED = 300 * MIB
const MORE = 512 * MIB
const MOST = 768 * MIB

/** Below level vm it is the host's kernel that grows the file system, for who has this. */
function mayGrow(): boolean {
  const CAP_SYS_RESOURCE = 24n
  const sets = /^CapEff:\s*([0-9a-f]+)$/mu.exec(readFileSync('/proc/self/status', 'utf8'))
  return ((BigInt(`0x${sets?.[1] ?? '0'}`) >> CAP_SYS_RESOURCE) & 1n) === 1n
}

export function resizeCases(machine: Machine): void {
  const { spawn } = machine
  const skip = machine.level !== 'vm' && !mayGrow() && 'root has no CAP_SYS_RESOURCE here'
  const first = machine.host.scratch.size

  suite('system/resize', { concurrency: 1 }, () => {
    test('grows disk and file system under the app, which loses nothing, and never beyond its most', {
      skip,
    }, async () => {
      const disk = ['space', 'claim', String(CLAIMED), 'line']
      const args = probe('keep', String(KEPT), ...disk, ...disk, 'check', String(KEPT), 'exit', '6')
      const running = await start(machine, { args, scratchBytesMax: MOST })
      const { pod } = running
      const before = await running.says(/claim .*\n/u)
      assert.match(before, /^keep \/keep ok\nspace \d+\nclaim \/claim ENOSPC\n$/u)
      const size = async () => (await spawn.list()).find((one) => one.pod === pod)?.scratch_bytes
      assert.equal(await size(), first)
      await assert.rejects(spawn.resize(pod, MOST + 4096), { code: 'SCRATCH_TOO_LARGE' })
      await assert.rejects(spawn.resize(pod, first - 4096), { code: 'SCRATCH_SHRINK' })
      assert.equal(await size(), first)
      await spawn.resize(pod, MORE)
      assert.equal(await size(), MORE)
      running.stream.stdin(Buffer.from('on\n'))
      const after = await running.says(/line on\nspace \d+\nclaim .*\n/u)
      const spaces = [...after.matchAll(/^space (\d+)$/gmu)].map((found) => Number(found[1]))
      const [small = 0, large = 0] = spaces
      // What ext4 keeps for itself grows with it: three parts of four of the new space are the app's.
      assert.ok(large - small > 0.75 * (MORE - first), `${small} and ${large} bytes`)
      assert.ok(large <= MORE, `${large} bytes`)
      assert.match(after, /claim \/claim ok\n$/u)
      // The same once more, and to the most: nothing about it is for once only.
      await spawn.resize(pod, MORE)
      await spawn.resize(pod, MOST)
      await assert.rejects(spawn.resize(pod, MORE), { code: 'SCRATCH_SHRINK' })
      const { scratch_bytes, scratch_used_bytes } = await spawn.usage(pod)
      assert.equal(scratch_bytes, MOST)
      assert.ok((scratch_used_bytes ?? MOST) < MORE, `${scratch_used_bytes} bytes: zeros are holes`)
      const { devices } = await spawn.metrics(pod)
      assert.equal(devices['scratch']?.['io_errors'], 0)
      running.stream.stdin(Buffer.from('on\n'))
      const { exit, stdout, notes } = await running.end()
      assert.equal(`${exit.how} ${exit.value} ${exit.cause}`, 'code 6 APP_EXIT', notes)
      assert.match(stdout, /check \/keep ok\n$/u)
    })

    test('refuses what the spec does not give', { skip }, async () => {
      const running = await start(machine, { args: probe('say', 'up', 'hold'), scratchBytesMax: 0 })
      await running.says(/up/u)
      await assert.rejects(spawn.resize(running.pod, MORE), { code: 'SCRATCH_TOO_LARGE' })
      await spawn.resize(running.pod, first)
      await spawn.kill(running.pod)
      await running.end()
    })
  })
}
