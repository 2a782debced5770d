/** Every finding, on both sides, on hosts that are laid out as files. */
import assert from 'node:assert/strict'
import { chmodSync, symlinkSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { isFinding } from '../../../agent/host/check.ts'
import { freeMemory } from '../../../agent/host/memory.ts'
import { recordedFindings } from '../../../agent/host/report.ts'
import { HostRoot } from '../../../agent/host/root.ts'
import { RECORD_BYTES_MAX } from '../../../audit/index.ts'
import {
  AMD,
  CPU,
  checkOf,
  description,
  examine,
  examineAt,
  type Files,
  layOut,
  MOUNTS,
  severityOf,
  weakness,
  write,
} from './layout.ts'

const software = description({}, { kvm: 'software', allow_software_kvm: true })

suite('agent/host', () => {
  test('finds nothing wrong with a good host of either kind', async (t) => {
    for (const changes of [{}, AMD]) {
      const report = await examine(t, changes)
      assert.deepEqual(report.findings, [])
      assert.equal(report.checks.length, 11)
    }
  })

  test('says of each finding what is wrong and what to do, and names each once', async (t) => {
    const report = await examine(
      t,
      {
        'sys/module/kvm_intel/parameters/nested': 'Y',
        'sys/kernel/mm/ksm/run': '1',
        [`${CPU}/smt/active`]: '1',
        [weakness('mds')]: 'Vulnerable',
      },
      description({ landlock: null }),
    )
    const ids = report.findings.map(({ id }) => id)
    assert.deepEqual(ids, ['cpu-mds', 'ksm', 'kvm-nested', 'landlock', 'smt'])
    for (const { reason, fix } of report.findings) {
      assert.match(reason, /\.$/u)
      assert.match(fix, /\.$/u)
    }
  })

  test('has one digest for the same findings, and another when one is added or changes', async (t) => {
    const root = layOut(t)
    const good = await examineAt(root)
    write(root, { 'proc/meminfo': 'MemAvailable: 1 kB\n', 'sys/kernel/mm/ksm/run': '2' })
    assert.equal((await examineAt(root)).digest, good.digest)
    write(root, { 'sys/kernel/mm/ksm/run': '1' })
    const merging = await examineAt(root)
    assert.notEqual(merging.digest, good.digest)
    write(root, { 'sys/kernel/mm/ksm/run': '0', 'sys/kernel/mm/ksm/pages_shared': '7' })
    const merged = await examineAt(root)
    assert.deepEqual(
      merged.findings.map(({ id }) => id),
      merging.findings.map(({ id }) => id),
    )
    assert.notEqual(merged.digest, merging.digest)
    assert.notEqual((await examineAt(root, description({}, { kvm: null }))).digest, merged.digest)
  })

  test('takes what is severe for a warning where root allowed software KVM, and only there', async (t) => {
    const wrong = { 'sys/kernel/mm/ksm/run': '1', [`${CPU}/smt/active`]: '1' }
    const mild = await examine(t, wrong, software)
    assert.deepEqual([severityOf(mild, 'ksm'), severityOf(mild, 'smt')], ['warning', 'warning'])
    const refused = description({}, { kvm: 'software', allow_software_kvm: false })
    assert.equal(severityOf(await examine(t, wrong, refused), 'smt'), 'severe')
    const both = description({}, { kvm: 'hardware', allow_software_kvm: true })
    assert.equal(severityOf(await examine(t, wrong, both), 'smt'), 'severe')
  })

  test('takes what cannot be read for a finding', async (t) => {
    const root = layOut(t, { 'sys/kernel/mm/ksm/run': null })
    symlinkSync('run', path.join(root, 'sys/kernel/mm/ksm/run')) // ELOOP
    const found = checkOf(await examineAt(root), 'ksm')
    assert.equal(found?.severity, 'severe')
    assert.match(found.reason, /ELOOP/u)
  })

  test('finds what is wrong with a root that has nothing in it', async (t) => {
    const root = layOut(t, { proc: null, sys: null })
    const ids = (await examineAt(root)).findings.map(({ id }) => id)
    assert.deepEqual(ids, ['cgroups', 'cpu', 'ksm', 'kvm-nested', 'kvm-paging', 'smt', 'swap'])
  })

  test('has findings that fit a record, however many weaknesses a kernel lists', async (t) => {
    const names = Array.from({ length: 61 }, (_, index) => `weakness_with_a_long_name_${index}`)
    const many = ['mds', 'meltdown', 'l1tf', ...names].map((name) => [
      weakness(name),
      `Vulnerable: ${'x'.repeat(500)}`,
    ])
    const { findings } = await examine(t, Object.fromEntries(many) as Files)
    assert.equal(findings.length, 64)
    const bytes = Buffer.byteLength(JSON.stringify(recordedFindings(findings)))
    assert.ok(bytes < RECORD_BYTES_MAX - 1024, `${bytes} bytes`)
  })
})

suite('agent/host kvm', () => {
  for (const [kvm, allowed, severity] of [
    ['hardware', false, 'ok'],
    ['software', true, 'warning'],
    ['software', false, 'severe'],
    [null, true, 'severe'],
  ] as const) {
    test(`is ${severity} with ${kvm} KVM, software ${allowed ? '' : 'not '}allowed`, async (t) => {
      const host = description({}, { kvm, allow_software_kvm: allowed, kvm_reason: 'No /dev/kvm.' })
      const found = checkOf(await examine(t, {}, host), 'kvm')
      assert.equal(found?.severity, severity)
      if (kvm === null) assert.equal(found.reason, 'No /dev/kvm.')
    })
  }

  const intel = 'sys/module/kvm_intel/parameters'
  const amd = 'sys/module/kvm_amd/parameters'
  for (const [id, changes, severity] of [
    ['kvm-nested', { [`${intel}/nested`]: 'Y' }, 'severe'],
    ['kvm-nested', { [`${intel}/nested`]: '1' }, 'severe'],
    ['kvm-nested', { [`${intel}/nested`]: 'N' }, 'ok'],
    ['kvm-nested', { [`${intel}/nested`]: null }, 'severe'],
    ['kvm-nested', { ...AMD, [`${amd}/nested`]: '1' }, 'severe'],
    // Built in for both: the processor says whose parameters count.
    ['kvm-nested', { ...AMD, [`${intel}/nested`]: 'Y' }, 'ok'],
    ['kvm-paging', { ...AMD, [`${intel}/ept`]: 'N' }, 'ok'],
    ['kvm-paging', { [`${intel}/ept`]: 'N' }, 'severe'],
    ['kvm-paging', { [`${intel}/ept`]: 'maybe' }, 'severe'],
    ['kvm-paging', { ...AMD, [`${amd}/npt`]: '0' }, 'severe'],
  ] as const satisfies readonly (readonly [string, Files, string])[]) {
    test(`${id} is ${severity} with ${JSON.stringify(Object.entries(changes).at(-1))}`, async (t) => {
      assert.equal(severityOf(await examine(t, changes), id), severity)
    })
  }

  test('is about no module where there is neither VMX nor SVM, unless spawn found one', async (t) => {
    const none: Files = { 'proc/cpuinfo': 'flags\t\t: fpu vmxx\nmodel name\t: vmx\n' }
    const report = await examine(t, none, software)
    assert.equal(severityOf(report, 'kvm-nested'), 'ok')
    assert.equal(severityOf(report, 'kvm-paging'), 'ok')
    assert.equal(severityOf(await examine(t, none), 'kvm-nested'), 'severe')
  })

  test('is severe with a KVM that lacks what the VMM uses, and silent without one', async (t) => {
    const lacking = checkOf(
      await examine(t, {}, description({ kvm_missing: ['IRQFD', 'XCRS'] })),
      'kvm-capabilities',
    )
    assert.equal(lacking?.severity, 'severe')
    assert.match(lacking.reason, /IRQFD, XCRS/u)
    const old = await examine(t, {}, description({ kvm_api: 11 }))
    assert.equal(severityOf(old, 'kvm-capabilities'), 'severe')
    const none = await examine(t, {}, description({ kvm_api: null }))
    assert.equal(severityOf(none, 'kvm-capabilities'), 'none')
  })

  for (const [mode, severity] of [
    [0o600, 'ok'],
    [0o660, 'ok'],
    [0o666, 'severe'],
    [0o604, 'severe'],
    [0o602, 'severe'],
  ] as const) {
    test(`is ${severity} with a device of mode 0${mode.toString(8)}`, async (t) => {
      const root = layOut(t)
      chmodSync(path.join(root, 'dev/kvm'), mode)
      const found = checkOf(await examineAt(root), 'kvm-device')
      assert.equal(found?.severity, severity)
      assert.match(found.reason, new RegExp(`mode 0${mode.toString(8)}`, 'u'))
      if (isFinding(found)) assert.match(found.fix, /chmod 0600 .*udev/u)
    })
  }

  test('leaves a device that is missing to the line about the kind of KVM', async (t) => {
    const root = layOut(t)
    write(root, { 'dev/kvm': null })
    assert.equal(severityOf(await examineAt(root), 'kvm-device'), 'none')
  })
})

suite('agent/host memory', () => {
  for (const [run, shared, severity] of [
    ['0', '0', 'ok'],
    ['2', '0', 'ok'],
    ['0', null, 'ok'],
    [null, null, 'ok'],
    ['1', '0', 'severe'],
    ['0', '12', 'severe'],
    ['3', '0', 'severe'],
  ] as const) {
    test(`ksm is ${severity} with run ${run} and pages_shared ${shared}`, async (t) => {
      const ksm = { 'sys/kernel/mm/ksm/run': run, 'sys/kernel/mm/ksm/pages_shared': shared }
      assert.equal(severityOf(await examine(t, ksm), 'ksm'), severity)
    })
  }

  for (const [kib, severity] of [
    [1_638_400, 'ok'],
    [1_638_399, 'warning'],
  ] as const) {
    test(`free memory is ${severity} with ${kib} KiB, and is no part of the findings`, async (t) => {
      const root = layOut(t, { 'proc/meminfo': `MemAvailable:   ${kib} kB\n` })
      assert.equal((await freeMemory(new HostRoot(root))).severity, severity)
      assert.equal(severityOf(await examineAt(root), 'memory'), 'none')
    })
  }
})

suite('agent/host limits', () => {
  const v1 = ['memory', 'cpu', 'pids'].map(
    (name, index) =>
      `${30 + index} 22 0:${30 + index} / /sys/fs/cgroup/${name} rw - cgroup cgroup rw,${name}`,
  )
  const unified = '41 22 0:41 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw'
  const root = MOUNTS[0] ?? ''
  for (const [name, mounts, changes, severity, says] of [
    ['version 2', MOUNTS, {}, 'ok', /version 2/u],
    ['version 1', [root, ...v1], {}, 'warning', /version 1:/u],
    [
      'hybrid',
      [root, ...v1, unified],
      { 'sys/fs/cgroup/unified/cgroup.controllers': '' },
      'warning',
      /version 1 beside version 2/u,
    ],
    [
      'version 2 without pids',
      MOUNTS,
      { 'sys/fs/cgroup/cgroup.controllers': 'cpu memory' },
      'warning',
      /No cgroups with/u,
    ],
    ['none', [root], {}, 'warning', /No cgroups with/u],
  ] as const) {
    test(`cgroups are ${severity} with ${name}`, async (t) => {
      const layout = { 'proc/self/mountinfo': `${mounts.join('\n')}\n`, ...changes }
      const found = checkOf(await examine(t, layout), 'cgroups')
      assert.equal(found?.severity, severity)
      assert.match(found.reason, says)
    })
  }

  test('Landlock is a warning where it is missing', async (t) => {
    assert.equal(severityOf(await examine(t, {}, description({ landlock: 1 })), 'landlock'), 'ok')
    const without = await examine(t, {}, description({ landlock: null }))
    assert.equal(severityOf(without, 'landlock'), 'warning')
  })
})
