/**
 * What a monitor and an OCI runtime can get wrong, at both levels below vm: whether what runs is what was recorded, what
 * an image leads to, and what is left when anything of a pod is killed.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { copyFileSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { before as first, suite, test } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Machine, SpawnHost } from './harness.ts'
import { type Ended, papers, prepare, probe, refusal, run, sh, start, submit } from './launch.ts'
import { appGroupsOf, gone, groupsOf, idsIn } from './left.ts'
import { isNamed } from './named.ts'

const RUNC = '/usr/sbin/runc'
const LOOK_MS = 10
const told = ({ exit }: Ended): string => `${exit.how} ${exit.value} ${exit.cause}`
const digestOf = (file: string): string =>
  createHash('sha256').update(readFileSync(file)).digest('hex')

export function monitorCases(machine: Machine): void {
  const { spawn } = machine

  suite('system/monitor', { concurrency: 1 }, () => {
    /** With no pods but of these tests. */
    let on: SpawnHost
    first(async () => {
      on = await machine.another('monitored', {})
    })

    test('takes a ticket once, and for the container that was recorded', async () => {
      const prepared = await prepare(machine, { args: probe('say', 'once') })
      const given = await papers(machine, prepared)
      await (await submit(prepared, given)).end()
      assert.equal(await refusal(prepared, given), 'POD_EXISTS')
      await spawn.forget(prepared.pod)
      assert.equal(await refusal(prepared, given), 'TICKET_SPENT')
      for (const [name, code] of [
        ['bundle', 'SPEC_NOT_OF_THIS_HOST'],
        ['digest', 'SPEC_NOT_OF_THIS_HOST'],
        ['runtime', 'SPEC_NOT_OF_THIS_HOST'],
      ] as const) {
        const bent = await prepare(machine, { args: probe() }, (spec) => {
          spec['container'] = { ...Object(spec['container']), [name]: `sha256:${'0'.repeat(64)}` }
        })
        assert.equal(await refusal(bent, await papers(machine, bent)), code, name)
      }
      for (const [name, value] of [
        ['kvm', 'software'],
        ['machine', { vcpus: 1, memory_mib: 128, cmdline: 'x' }],
        ['container', null],
      ] as const) {
        const mixed = await prepare(machine, { args: probe() }, (spec) => {
          spec[name] = value
        })
        assert.equal(await refusal(mixed, await papers(machine, mixed)), 'SPEC_MALFORMED', name)
      }
    })

    test('runs no image with a byte that was not signed, and no byte that is changed under it', async () => {
      const image = { ...machine.image, path: machine.place('owned') }
      copyFileSync(machine.image.path, image.path)
      const running = await start(machine, {
        args: sh('echo up; read word; cat /data/text'),
        image,
      })
      await running.says(/up/u)
      // What an agent that was taken over can do: the file is its own.
      writeFileSync(image.path, Buffer.alloc(machine.image.size, 0x55))
      writeFileSync('/proc/sys/vm/drop_caches', '1')
      running.stream.stdin(Buffer.from('on\n'))
      const ended = await running.end()
      assert.equal(told(ended), 'code 0 APP_EXIT', ended.stderr)
      const good = await run(machine, { args: sh('echo up; cat /data/text') })
      assert.equal(ended.stdout, good.stdout)

      copyFileSync(machine.image.path, image.path)
      const file = openSync(image.path, 'r+')
      writeSync(file, Buffer.from([0x55]), 0, 1, 4096 * 3 + 17)
      const bent = await run(machine, { args: probe('say', 'hello'), image })
      assert.equal(`${bent.exit.how} ${bent.exit.cause}`, 'failure VERITY')
      assert.equal(bent.stdout, '')
    })

    test('a working directory or a program that is a descriptor leads nowhere (CVE-2024-21626, CVE-2019-5736)', async () => {
      const before = [RUNC, machine.artifacts.container].map(digestOf)
      for (let number = 0; number < 16; number += 1) {
        const cwd = `/proc/self/fd/${number}`
        // oxlint-disable-next-line no-await-in-loop -- one after the other
        const ended = await run(machine, { args: probe('see', '../../../../etc/shadow'), cwd })
        assert.equal(`${ended.exit.how} ${ended.exit.cause}`, 'failure APP_START', cwd)
        assert.match(ended.exit.text ?? '', /^APP_CWD: /u)
      }
      for (const args of [
        ['/proc/self/exe'],
        ['/proc/1/exe', '--run', '0', '/', '/'],
        ['/proc/self/fd/3', '--app'],
      ]) {
        // oxlint-disable-next-line no-await-in-loop
        const ended = await run(machine, { args })
        assert.notEqual(told(ended), 'code 0 APP_EXIT', args.join(' '))
      }
      const script =
        'for f in /proc/self/exe /proc/1/exe; do echo "#!/bin/sh" > $f; done; echo tried'
      assert.match((await run(machine, { args: sh(script) })).stdout, /tried/u)
      assert.deepEqual([RUNC, machine.artifacts.container].map(digestOf), before)
    })

    test('masks are over what they mask, and take no other direction from the image (CVE-2025-31133, -52565, -52881)', async () => {
      const script = `
        for p in /proc/interrupts /proc/keys /proc/timer_list; do [ -c $p ] && [ -z "$(cat $p)" ] && echo "$p masked"; done
        for p in /proc/acpi /sys/firmware; do [ -z "$(ls $p)" ] && echo "$p empty"; done
        for p in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity; do
          (echo x > $p) 2>/dev/null || echo "$p closed"; done
        [ -e /dev/console ] || echo no console; umount /proc/keys 2>/dev/null || echo stays`
      const ended = await run(machine, { args: sh(script), capabilities: ['CAP_DAC_OVERRIDE'] })
      assert.equal(ended.stderr, '')
      const expected = [
        ...['interrupts', 'keys', 'timer_list'].map((name) => `/proc/${name} masked`),
        '/proc/acpi empty',
        '/sys/firmware empty',
        '/proc/sys/kernel/core_pattern closed',
        '/proc/sysrq-trigger closed',
        '/proc/irq/default_smp_affinity closed',
        'no console',
        'stays',
      ]
      assert.deepEqual(ended.stdout.trim().split('\n'), expected)
    })

    test('a fork bomb, a full disk and a hoard of memory stay in the pod', async () => {
      const args = sh('echo up; f() { f | f & }; f; sleep 1000')
      const bomb = await start(machine, { args, on })
      await bomb.says(/up/u)
      while (((await on.spawn.usage(bomb.pod)).tasks ?? 0) < 60) await sleep(LOOK_MS)
      // In each hierarchy by itself: between two of them some end and others begin.
      const sizes = groupsOf(bomb.pod)
        .flatMap(appGroupsOf)
        .map((group) => idsIn(group).length)
      assert.ok(Math.max(...sizes) <= 64, `${sizes.join(' ')}: as many as the spec says`)
      await on.spawn.kill(bomb.pod)
      assert.equal(told(await bomb.end()), 'vmm 9 KILLED')
      await gone(on.directory, bomb.pod)

      const full = await run(machine, { args: probe('claim', String(2 ** 30), 'say', 'alive') })
      assert.match(full.stdout, /^claim \/claim ENOSPC\nalive\n$/u)
      const eaten = await run(machine, { args: probe('eat') })
      assert.equal(told(eaten), 'oom 9 APP_OOM', eaten.notes)
      isNamed(eaten.exit, 'RUNNING')
    })

    test('a monitor that is killed takes everything with it', async () => {
      const args = sh('echo up; (sleep 1000 &) & exec sleep 1000')
      const running = await start(machine, { args, on })
      await running.says(/up/u)
      process.kill(running.pid, 'SIGKILL')
      const ended = await running.end()
      assert.equal(told(ended), 'vmm 9 VMM_SIGNAL')
      assert.equal(ended.exit.text, 'the monitor was killed by SIGKILL')
      await gone(on.directory, running.pod)
    })
  })
}
