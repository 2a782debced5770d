/** Memory that a guest has used and freed is the host's again, though nobody asks the guest for it. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { suite, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import type { Machine } from './harness.ts'
import { probe, start } from './launch.ts'

const BORROWED_MIB = 48
/** Linux reports whole pieces of 512 KiB, so that some at the edges stay. */
const RETURNED_MIB = 40
const LOOK_MS = 50
/** Linux waits 2 s before it looks for what is free; the rest is for a busy host. */
const WAIT_MS = 120_000

/** Memory of a process that is its own, in MiB: a restored guest's, without what it shares with its template. */
function ownMib(pid: number): number {
  const kib = /^RssAnon:\s+(\d+) kB$/mu.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
  return Number(kib) / 1024
}

export function balloonCases(machine: Machine): void {
  suite('system/balloon', { concurrency: 1 }, () => {
    test('memory that an app gives back to its guest goes back to the host', async (t) => {
      const args = probe('say', 'up', 'borrow', String(BORROWED_MIB), 'line')
      const running = await start(machine, { args })
      await running.says(/up/u)
      const before = ownMib(running.pid)
      await running.says(/borrow memory ok/u)
      const borrowed = ownMib(running.pid)
      running.stream.stdin(Buffer.from('return it\n'))
      await running.says(/return memory ok/u)
      const deadline = Date.now() + WAIT_MS
      let after = ownMib(running.pid)
      while (after > borrowed - RETURNED_MIB && Date.now() < deadline) {
        await pause(LOOK_MS)
        after = ownMib(running.pid)
      }
      const { devices } = await machine.spawn.metrics(running.pod)
      running.stream.stdin(Buffer.from('end\n'))
      const ended = await running.end()
      const figures = [before, borrowed, after].map((mib) => mib.toFixed(1)).join(', ')
      t.diagnostic(
        `MiB before, borrowed and after: ${figures}; ${JSON.stringify(devices['balloon'])}`,
      )
      assert.equal(`${ended.exit.how} ${ended.exit.value}`, 'code 0', ended.notes)
      assert.ok(borrowed - before > RETURNED_MIB, figures)
      assert.ok(after <= borrowed - RETURNED_MIB, figures)
      const returned = devices['balloon']?.['bytes_from_guest'] ?? 0
      assert.ok(returned >= RETURNED_MIB << 20, `${returned} bytes were reported`)
    })
  })
}
