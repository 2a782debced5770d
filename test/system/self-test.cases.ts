/** The self-test of `casemate doctor --vm`, with the template that is there and a few of its attacks. */
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { suite, test } from 'node:test'
import { ATTACKS, type Attack } from '../../agent/self-test/attacks.ts'
import { selfTest } from '../../agent/self-test/index.ts'
import type { Machine } from './harness.ts'

const checkout = path.resolve(import.meta.dirname, '../..')
/** One that its VMM survives, three that it does not. */
const SOME = new Set(['beyond 2', 'twice 0', 'triple', 'halt'])
const known = ATTACKS.filter(({ words }) => SOME.has(words))

/** What a VMM that is not ours would do, as far as the self-test can tell. */
const WRONG: readonly Attack[] = [
  { words: 'beyond 2', what: 'goes on, and should have ended', ends: ['DEVICE_QUEUE'] },
  { words: 'twice 0', what: 'ended, and should go on', ends: [] },
  { words: 'reset fe', what: 'ended for another cause', ends: ['DEVICE_QUEUE'] },
]

const left = (): readonly string[] =>
  readdirSync(tmpdir()).filter((name) => name.startsWith('casemate-self-test-'))

export function selfTestCases(machine: Machine): void {
  suite('system/self-test', { concurrency: 1 }, () => {
    test('measures an ordinary guest, and tells walls that held from those that did not', async () => {
      await machine.template // so that it need not be built again
      const before = left()
      const { templates } = machine.artifacts
      const attacks = [...known, ...WRONG]
      const found = await selfTest({ checkout, tell: () => undefined, attacks, templates })
      const { kvm, figures, files_unchanged, held } = found
      assert.equal(kvm, machine.host.kvm)
      assert.deepEqual(
        found.attacks.map((one) => [one.words, one.end, one.held]),
        [
          ['beyond 2', 'goes on', true],
          ['twice 0', 'failure DEVICE_QUEUE', true],
          // Hardware shuts down, an interpreter gives up.
          ['triple', kvm === 'software' ? 'failure GUEST_CRASH' : 'failure GUEST_GONE', true],
          ['halt', 'failure BOOT_TIMEOUT', true],
          ['beyond 2', 'goes on', false],
          ['twice 0', 'failure DEVICE_QUEUE', false],
          ['reset fe', 'failure GUEST_GONE', false],
        ],
      )
      assert.deepEqual([files_unchanged, held], [true, false])
      const { template_ms, jail_ms, first_output_ms, overhead_kib, peak_mib } = figures
      assert.equal(template_ms, null, 'the template was kept')
      assert.ok(jail_ms > 0 && first_output_ms > jail_ms, JSON.stringify(figures))
      assert.ok(overhead_kib > 500 && overhead_kib < 8192, String(overhead_kib))
      assert.ok(peak_mib === null || (peak_mib > 0 && peak_mib <= 128 + 64), String(peak_mib))
      assert.deepEqual(left(), before)
    })
  })
}
