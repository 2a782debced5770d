/** The processor: SMT, and every sentence the kernel has for its weaknesses. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { readingOf } from '../../../agent/host/cpu.ts'
import { CPU, checkOf, description, examine, severityOf, weakness } from './layout.ts'

const scheduled = description({ core_scheduling: true })

/** From Linux 6.1 to 6.18, arch/x86/kernel/cpu/bugs.c. */
const SENTENCES = {
  fine: [
    'Not affected',
    'Mitigation: PTI',
    'Mitigation: Clear CPU buffers; SMT disabled',
    'Mitigation: Clear CPU buffers; SMT mitigated',
    'Mitigation: PTE Inversion; VMX: cache flushes, SMT disabled',
    'Mitigation: PTE Inversion; VMX: flush not necessary, SMT disabled',
    'KVM: Mitigation: Split huge pages',
    'KVM: Mitigation: VMX disabled',
    'Mitigation: Retpolines; IBPB: conditional; STIBP: disabled; RSB filling; PBRSB-eIBRS: Not affected; BHI: Not affected',
    'Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; RSB filling; PBRSB-eIBRS: SW sequence; BHI: SW loop, KVM: SW loop',
    'Mitigation: Full generic retpoline, IBPB: conditional, IBRS_FW, STIBP: always-on, RSB filling',
    'Mitigation: untrained return thunk; SMT enabled with STIBP protection',
    'Mitigation: Safe RET',
    'Mitigation: IBPB before exit to userspace',
    'Mitigation: TSX disabled',
    'Mitigation: Microcode (locked)',
  ],
  smt: [
    'Mitigation: Clear CPU buffers; SMT vulnerable',
    'Mitigation: PTE Inversion; VMX: conditional cache flushes, SMT vulnerable',
    'Mitigation: untrained return thunk; SMT vulnerable',
  ],
  hosted: [
    'Mitigation: Clear CPU buffers; SMT Host state unknown',
    'Unknown: Dependent on hypervisor status',
    'Unknown: running under hypervisor',
  ],
  vulnerable: [
    'Vulnerable',
    'KVM: Vulnerable',
    'Processor vulnerable',
    'Vulnerable: No microcode',
    'Vulnerable: Safe RET, no microcode',
    'Vulnerable: Clear CPU buffers attempted, no microcode; SMT Host state unknown',
    'Vulnerable; IBPB: disabled; STIBP: disabled; PBRSB-eIBRS: Not affected; BHI: Not affected',
    'Mitigation: PTE Inversion; VMX: vulnerable',
    'Mitigation: PTE Inversion; VMX: vulnerable, SMT vulnerable',
    'Mitigation: Enhanced / Automatic IBRS; IBPB: conditional; PBRSB-eIBRS: Vulnerable; BHI: BHI_DIS_S',
    'Mitigation: Retpolines; IBPB: conditional; BHI: Vulnerable, KVM: SW loop',
    'Unknown: No mitigations',
    'Unknown (XEN PV detected, hypervisor mitigation required)',
    'Mitigated',
    '',
  ],
} as const

suite('agent/host cpu', () => {
  for (const [reading, sentences] of Object.entries(SENTENCES)) {
    for (const sentence of sentences) {
      test(`reads "${sentence}" as ${reading}`, () => {
        assert.equal(readingOf(sentence), reading)
      })
    }
  }

  for (const [name, sentence, severity] of [
    ['mds', 'Vulnerable', 'severe'],
    ['mds', 'Mitigation: Clear CPU buffers; SMT vulnerable', 'severe'],
    ['mds', 'Mitigation: Clear CPU buffers; SMT Host state unknown', 'warning'],
    ['vmscape', 'Vulnerable', 'severe'],
    ['a_weakness_of_next_year', 'Vulnerable', 'severe'],
    ['spec_store_bypass', 'Vulnerable', 'warning'],
    ['old_microcode', 'Vulnerable', 'warning'],
  ] as const) {
    test(`makes "${sentence}" of ${name} a ${severity} finding of its own`, async (t) => {
      const report = await examine(t, { [weakness(name)]: `${sentence}\n` })
      const [found] = report.findings
      assert.equal(report.findings.length, 1)
      assert.equal(found?.id, `cpu-${name.replaceAll('_', '-')}`)
      assert.equal(found.severity, severity)
      assert.match(found.reason, new RegExp(`${name}: ${sentence}`, 'u'))
    })
  }

  test('says in one line that nothing is open', async (t) => {
    const report = await examine(t)
    assert.match(checkOf(report, 'cpu')?.reason ?? '', /^3 known weaknesses/u)
  })

  test('is severe where the kernel says nothing of weaknesses', async (t) => {
    const report = await examine(t, { [`${CPU}/vulnerabilities`]: null })
    assert.equal(severityOf(report, 'cpu'), 'severe')
  })

  for (const [active, host, severity] of [
    ['0', description(), 'ok'],
    ['1', description(), 'severe'],
    ['1', scheduled, 'ok'],
    [null, scheduled, 'severe'],
    ['?', scheduled, 'severe'],
  ] as const) {
    const cores = host.host.core_scheduling ? 'with' : 'without'
    test(`smt is ${severity} with active ${active}, ${cores} core scheduling`, async (t) => {
      const report = await examine(t, { [`${CPU}/smt/active`]: active }, host)
      assert.equal(severityOf(report, 'smt'), severity)
    })
  }

  test('warns only, with core scheduling, of what the other thread of a core gets past', async (t) => {
    const mds = { [weakness('mds')]: 'Mitigation: Clear CPU buffers; SMT vulnerable' }
    assert.equal(severityOf(await examine(t, mds, scheduled), 'cpu-mds'), 'warning')
    const open = { [weakness('mds')]: 'Vulnerable; SMT vulnerable' }
    assert.equal(severityOf(await examine(t, open, scheduled), 'cpu-mds'), 'severe')
  })
})
