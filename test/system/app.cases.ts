/** What an app finds in its machine, and what is told of its end. */
import assert from 'node:assert/strict'
import { availableParallelism, hostname, release } from 'node:os'
import { suite, test } from 'node:test'
import { run as interpret, X86_64 } from '../native/bpf-interpreter.ts'
import type { Machine } from './harness.ts'
import { type Ended, facts, prepare, probe, run, sh, start } from './launch.ts'
import { isNamed } from './named.ts'

const told = ({ exit }: Ended): string =>
  `${exit.how} ${exit.value} ${exit.cause} ${String(exit.guest_reported)}`
const kinds = ({ events }: Ended): readonly string[] => events.map(({ kind }) => kind)

/** Calls that the kernel of every level knows: 0 to 334, and what came after 423. */
const CALLS = [...Array(335).keys(), ...Array.from({ length: 26 }, (_, at) => 424 + at)]
const SECCOMP_RET_ERRNO = 0x0005_0000

/** Calls that the program answers with an error whatever their arguments, with that error. */
function deniedBy(program: Buffer): ReadonlyMap<number, number> {
  const denied = CALLS.flatMap((nr) => {
    const answers = [0n, 1n, 0xffff_ffffn].map((word) =>
      interpret(program, { arch: X86_64, nr, args: Array<bigint>(6).fill(word) }),
    )
    const [answer = 0] = answers
    const isDenied = answers.every((one) => one === answer) && answer >>> 16 === 5
    return isDenied ? [[nr, answer - SECCOMP_RET_ERRNO] as const] : []
  })
  return new Map(denied)
}

const member = (value: unknown, name: string): unknown =>
  typeof value === 'object' && value !== null ? Reflect.get(value, name) : undefined

/** The seccomp program of a spec, base64. */
const programOf = (spec: unknown): string =>
  String(member(member(member(member(spec, 'apps'), '0'), 'seccomp'), 'program'))

export function appCases(machine: Machine): void {
  const isVm = machine.level === 'vm'
  const isHost = machine.level === 'host'

  suite('system/app', { concurrency: 1 }, () => {
    test('prints the release of its kernel, which is the host’s at no level but below vm', async () => {
      const ended = await run(machine, { args: sh('uname -r; echo complaint >&2; exit 3') })
      assert.equal(told(ended), 'code 3 APP_EXIT true', ended.notes)
      if (isVm) assert.match(ended.stdout, /^\d+\.\d+\.\d+-casemate\S*\n$/u)
      assert.equal(ended.stdout.trim() === release(), !isVm)
      assert.equal(ended.stderr, 'complaint\n')
      assert.deepEqual(kinds(ended), ['started', 'exit'])
    })

    test('gives a process the environment, directory, name and capabilities of its plan', async () => {
      const ended = await run(machine, {
        args: probe('fds', 'facts', 'touch', '/made', 'node', 'c1:3'),
        env: ['GREETING=good  morning'],
        cwd: '/data/new',
        hostname: 'guest-7',
        capabilities: ['CAP_CHOWN', 'CAP_NET_BIND_SERVICE'],
      })
      assert.equal(told(ended), 'code 0 APP_EXIT true', ended.notes)
      const found = facts(ended.stdout)
      const expected = {
        host: isHost ? hostname() : 'guest-7',
        cwd: '/data/new',
        // At level host its number is one of the host's.
        pid: isHost ? (found.get('pid') ?? 'none') : '1',
        processors: isVm ? '1' : String(availableParallelism()),
        'Uid:': '0 0 0 0',
        'CapInh:': '0000000000000000',
        'CapPrm:': '0000000000000401',
        'CapEff:': '0000000000000401',
        'CapBnd:': '0000000000000401',
        'CapAmb:': '0000000000000000',
        'NoNewPrivs:': '1',
        'Seccomp:': '2',
        touch: '/made ok',
        mknod: 'c1:3 EPERM',
        descriptors: '0 1 2',
      }
      for (const [name, value] of Object.entries(expected)) {
        assert.equal(found.get(name), value, name)
      }
      const env = ended.stdout.split('\n').filter((line) => line.startsWith('env:'))
      const own = env.filter((line) => !line.startsWith('env:GLIBC_TUNABLES='))
      assert.deepEqual(own, ['env:PATH=/bin', 'env:GREETING=good  morning', 'env:HOME=/root'])
    })

    test('gives a user of the image no capability, no control port, and no root to write to', async () => {
      const hidden = ['/dev/vport0p1', '/dev/vda', '/dev/vdb', '/dev/kmsg', '/dev/mem', '/init']
      const ended = await run(machine, {
        args: probe(
          'facts',
          ...['/made', '/tmp/made'].flatMap((place) => ['touch', place]),
          ...hidden.flatMap((place) => ['see', place]),
          'write',
          '/proc/sys/kernel/hostname',
        ),
        user: 'web',
        readOnlyRoot: true,
      })
      assert.equal(told(ended), 'code 0 APP_EXIT true', ended.notes)
      const found = facts(ended.stdout)
      const sets = ['CapInh:', 'CapPrm:', 'CapEff:', 'CapAmb:']
      for (const set of sets) assert.equal(found.get(set), '0000000000000000', set)
      assert.equal(found.get('Uid:'), '1000 1000 1000 1000')
      assert.equal(found.get('Gid:'), '1001 1001 1001 1001')
      assert.equal(found.get('Groups:'), '1002')
      assert.match(ended.stdout, /^env:HOME=\/home\/web$/mu)
      assert.match(ended.stdout, /^touch \/made EROFS$/mu)
      assert.match(ended.stdout, /^touch \/tmp\/made ok$/mu)
      assert.match(ended.stdout, /^write \/proc\/sys\/kernel\/hostname E/mu)
      for (const place of hidden) assert.ok(ended.stdout.includes(`see ${place} ENOENT\n`), place)
    })

    test('keeps disks and control port from a process that may make device nodes', {
      skip: isHost && 'no process may at level host',
    }, async () => {
      const nodes = ['c1:3', 'b254:0', 'b254:16', 'c1:1', 'c10:232', 'c511:1', 'c4:64']
      const ended = await run(machine, {
        args: probe(...nodes.flatMap((node) => ['node', node])),
        capabilities: ['CAP_MKNOD', 'CAP_DAC_OVERRIDE', 'CAP_SYS_ADMIN', 'CAP_SYS_RAWIO'],
      })
      assert.equal(told(ended), 'code 0 APP_EXIT true', ended.notes)
      for (const node of nodes) {
        // In a user namespace none is made at all.
        if (!isVm) assert.ok(ended.stdout.includes(`mknod ${node} EPERM\n`), node)
        else {
          assert.ok(ended.stdout.includes(`mknod ${node} ok\n`), `${node} is made`)
          assert.match(ended.stdout, new RegExp(`^opens ${node} E(ACCES|PERM)$`, 'mu'))
        }
      }
    })

    test('denies just the system calls that the program in the spec denies, with its error', async () => {
      const prepared = await prepare(machine, { args: probe('hold') })
      const spec: unknown = JSON.parse(prepared.spec.toString('utf8'))
      const denied = deniedBy(Buffer.from(programOf(spec), 'base64'))
      assert.ok(denied.size > 50, `${denied.size} calls`)
      const ended = await run(machine, { args: probe('calls', [...denied.keys()].join(',')) })
      assert.equal(told(ended), 'code 0 APP_EXIT true', ended.notes)
      const found = [...ended.stdout.matchAll(/^call (\d+) (\d+)$/gmu)]
      assert.deepEqual(new Map(found.map(([, nr, errno]) => [Number(nr), Number(errno)])), denied)
    })

    test('tells a signal and a fault from a code', async () => {
      const killed = await start(machine, { args: probe('say', 'up', 'hold') })
      await killed.says(/up/u)
      killed.stream.signal(9)
      assert.equal(told(await killed.end()), 'signal 9 APP_SIGNAL true')
      assert.equal(told(await run(machine, { args: probe('crash') })), 'signal 11 APP_SIGNAL true')
    })

    for (const [what, wish, code] of [
      ['a program that is not there', { args: ['/bin/none'] }, 'APP_NOT_FOUND'],
      ['a file that is no program', { args: ['/data/text'] }, 'APP_NOT_EXECUTABLE'],
      ['a user that is not there', { args: probe(), user: 'nobody' }, 'APP_USER'],
    ] as const) {
      test(`names what is wrong with ${what}`, async () => {
        const ended = await run(machine, wish)
        const { exit } = ended
        assert.equal(`${exit.how} ${exit.cause}`, 'failure APP_START')
        assert.match(exit.text ?? '', new RegExp(`^${code}: `, 'u'))
        isNamed(exit, 'APP_START', code)
        assert.deepEqual(kinds(ended), ['error'])
      })
    }
  })
}
