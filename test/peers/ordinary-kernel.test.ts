/**
 * The kernel for hardware KVM, which build machines without VMX or SVM cannot run under KVM, in QEMU's
 * interpreter: there, unlike under software KVM, memory is filled within seconds.
 */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { missing } from './images-programs.ts'
import { runUnderTcg } from './tcg-machine.ts'

const SCRIPT = [
  'uname -r',
  'cd /sys/devices/system/cpu',
  'cat online',
  'cat vulnerabilities/spectre_v2',
  'exit 3',
].join(';')

suite('peers/ordinary kernel under TCG', {
  skip: missing('qemu-system-x86_64', 'busybox', 'gcc'),
}, () => {
  test('boots to init, runs an app on two processors, and keeps its mitigations', async (t) => {
    const said = await runUnderTcg(t, ['/bin/sh', '-c', SCRIPT])
    const [release = '', online, spectre] = said.output.split('\n')
    assert.match(release, /^6\.1\.\d+-casemate$/u, said.console)
    assert.equal(online, '0-1')
    assert.match(spectre ?? '', /^Mitigation: /u)
    assert.deepEqual([said.how, said.value], [0, 3])
    // HELLO, UNIQUE_DONE, STARTED, credit for input, EXIT
    assert.deepEqual(
      said.kinds.filter((kind) => kind !== 67),
      [64, 65, 66, 71, 69],
    )
  })

  test('tells running out of memory from a signal', async (t) => {
    const { how, value, console } = await runUnderTcg(t, ['/bin/probe', 'eat'])
    assert.deepEqual([how, value], [2, 9], console)
  })
})
