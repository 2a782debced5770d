/** The seccomp worker and the default profile: what the kernel does with the program is what the profile says. */
import assert from 'node:assert/strict'
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { closeSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { after, suite, test } from 'node:test'
import { memfdSealed } from '../../native/addon.ts'
import { PROGRAM_FILE_BYTES_MAX } from '../../native/seccomp/compile.ts'
import { defaultSeccompProfile } from '../../native/seccomp/default-profile.ts'
import { parseSeccompProfile, type SeccompProfile } from '../../native/seccomp/profile.ts'
import { run, X86_64 } from './bpf-interpreter.ts'

const worker = path.resolve(import.meta.dirname, '../../native/workers/seccomp/main.ts')
const folder = mkdtempSync('/tmp/casemate-seccomp-')
after(() => {
  rmSync(folder, { recursive: true })
})

/** Runs the real worker as spawn does: request on 3, answer on 4. */
function ask(request: unknown): Record<string, unknown> {
  const fd = memfdSealed('request', Buffer.from(JSON.stringify(request)))
  const limit = `--fsize=${PROGRAM_FILE_BYTES_MAX}`
  const ended = spawnSync('prlimit', [limit, process.execPath, worker], {
    stdio: ['ignore', 'ignore', 'pipe', fd, 'pipe'],
  })
  closeSync(fd)
  assert.equal(ended.status, 0, String(ended.stderr))
  const answer: Record<string, unknown> = JSON.parse(String(ended.output[4]))
  return answer
}

function programOf(profile: SeccompProfile): Buffer {
  const answer = ask({ profile })
  assert.equal(answer['ok'], true, String(answer['message']))
  const program = Buffer.from(String(answer['program']), 'base64')
  assert.equal(answer['digest'], `sha256:${createHash('sha256').update(program).digest('hex')}`)
  return program
}

const unprivileged = programOf(defaultSeccompProfile([]))
const administrator = programOf(defaultSeccompProfile(['CAP_SYS_ADMIN', 'CAP_SYS_TIME']))

const ALLOW = 0x7fff_0000
const EPERM = 0x0005_0001
const ENOSYS = 0x0005_0026
const numbers = { clone: 56, clone3: 435, socket: 41, personality: 135, mount: 165, bpf: 321 }
const judge = (program: Buffer, nr: number, ...args: bigint[]): number =>
  run(program, { arch: X86_64, nr, args })

suite('native/seccomp default profile', () => {
  test('never allows io_uring, keys, kexec, module and mount calls', () => {
    const forbidden = [425, 426, 427, 248, 249, 250, 246, 320, 175, 313, 165, 166, 155, 272, 308]
    for (const nr of forbidden) assert.equal(judge(unprivileged, nr), EPERM, `call ${nr}`)
  })

  test('allows every call of an ordinary program', () => {
    for (const nr of [0, 1, 9, 59, 60, 202, 231, 257, 262, 318, 332, 452]) {
      assert.equal(judge(unprivileged, nr), ALLOW, `call ${nr}`)
    }
  })

  test('allows clone only without namespaces, and answers clone3 with ENOSYS', () => {
    assert.equal(judge(unprivileged, numbers.clone, 0x003d_0f00n), ALLOW) // a thread
    for (let bit = 0n; bit < 32n; bit += 1n) {
      const namespace = (0x7e02_0000n >> bit) & 1n
      const expected = namespace === 1n ? EPERM : ALLOW
      assert.equal(judge(unprivileged, numbers.clone, 1n << bit), expected, `flag bit ${bit}`)
    }
    assert.equal(judge(unprivileged, numbers.clone3), ENOSYS)
  })

  test('allows sockets of all families but AF_VSOCK', () => {
    for (let family = 0n; family < 50n; family += 1n) {
      assert.equal(judge(unprivileged, numbers.socket, family), family === 40n ? EPERM : ALLOW)
    }
  })

  test('allows only the five harmless personalities', () => {
    const harmless = new Set([0n, 8n, 0x2_0000n, 0x2_0008n, 0xffff_ffffn])
    for (const value of [...harmless, 1n, 0x4_0000n, 0x8_0000n, 0x40_0000n, 1n << 32n]) {
      const expected = harmless.has(value) ? ALLOW : EPERM
      assert.equal(judge(unprivileged, numbers.personality, value), expected, `${value}`)
    }
  })

  test('opens calls with the capability that the kernel asks for them', () => {
    for (const nr of [numbers.mount, numbers.bpf, numbers.clone3, 227, 164]) {
      assert.equal(judge(administrator, nr), ALLOW, `call ${nr}`)
    }
    assert.equal(judge(administrator, numbers.clone, 0x1000_0000n), ALLOW)
    assert.equal(judge(administrator, 175), EPERM)
  })

  test('answers calls that are newer than every rule with ENOSYS, and kills other tables', () => {
    for (const nr of [463, 500, 1000, 0x3fff_ffff]) assert.equal(judge(unprivileged, nr), ENOSYS)
    assert.equal(judge(unprivileged, 0x4000_0001), 0)
    assert.equal(run(unprivileged, { arch: 0x4000_0003, nr: 1, args: [] }), 0)
  })
})

suite('native/seccomp in the kernel', () => {
  const binary = path.join(folder, 'under-filter')
  execFileSync('gcc', ['-O1', '-o', binary, path.join(import.meta.dirname, 'under-filter.c')])
  const results = (program: Buffer, calls: readonly string[]): string[] => {
    const file = path.join(folder, 'program')
    writeFileSync(file, program)
    return execFileSync(binary, [file, ...calls], { encoding: 'utf8' })
      .trim()
      .split('\n')
  }

  test('does with each call what the interpreter says', () => {
    // Arguments that fail with another errno than EPERM when the call gets through.
    const table = [
      ['39', 'errno 0'], // getpid
      ['257:99:0:0', 'errno 14'], // openat of a null path: EFAULT
      ['425:1:0', 'errno 1'], // io_uring_setup
      ['165:0:0:0:0:0', 'errno 1'], // mount
      ['41:40:1:0', 'errno 1'], // socket(AF_VSOCK)
      ['41:2:99:0', 'errno 22'], // socket(AF_INET, nonsense)
      ['135:0xffffffff', 'errno 0'], // personality: which is it?
      ['135:0x40000', 'errno 1'], // personality: no randomisation
      ['435:0:0', 'errno 38'], // clone3
      ['272:0x10000000', 'errno 1'], // unshare a user namespace
      ['600', 'errno 38'], // not born yet
      ['0x40000027', 'signal 31'], // getpid of the x32 table
    ] as const
    const seen = results(
      unprivileged,
      table.map(([call]) => call),
    )
    assert.deepEqual(
      seen,
      table.map(([, expected]) => expected),
    )
  })

  test('does what a profile of a caller says, in both directions', () => {
    const profile = parseSeccompProfile({
      defaultAction: 'SCMP_ACT_ALLOW',
      syscalls: [
        { names: ['getpid'], action: 'SCMP_ACT_ERRNO', errnoRet: 77 },
        {
          names: ['dup'],
          action: 'SCMP_ACT_ERRNO',
          args: [{ index: 0, value: 10, op: 'SCMP_CMP_GT' }],
        },
        { names: ['getppid'], action: 'SCMP_ACT_KILL_PROCESS' },
      ],
    })
    const seen = results(programOf(profile), ['39', '32:11', '32:10', '110'])
    assert.deepEqual(seen, ['errno 77', 'errno 1', 'errno 9', 'signal 31'])
  })
})

suite('native/workers/seccomp', () => {
  test('refuses a call that nobody knows, by its name', () => {
    const answer = ask({
      profile: {
        defaultAction: 'SCMP_ACT_ALLOW',
        syscalls: [{ names: ['opne'], action: 'SCMP_ACT_ERRNO' }],
      },
    })
    assert.equal(answer['code'], 'SECCOMP_UNKNOWN_SYSCALL')
    assert.match(String(answer['message']), /"opne"/u)
  })

  const bad: readonly (readonly [string, unknown])[] = [
    ['an action of a supervisor', { defaultAction: 'SCMP_ACT_NOTIFY', syscalls: [] }],
    ['a member it does not know', { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [], listener: 'x' }],
    ['a negative value', profileWith({ index: 0, value: -1, op: 'SCMP_CMP_EQ' })],
    ['an argument that calls do not have', profileWith({ index: 6, value: 1, op: 'SCMP_CMP_EQ' })],
    ['a rule without names', { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [{ action: 'x' }] }],
  ]
  for (const [what, profile] of bad) {
    test(`refuses ${what}`, () => {
      assert.equal(ask({ profile })['code'], 'BAD_SHAPE')
    })
  }

  test('gives the same program for the same profile', () => {
    assert.deepEqual(programOf(defaultSeccompProfile([])), unprivileged)
  })
})

function profileWith(argument: unknown): unknown {
  const rule = { names: ['dup'], action: 'SCMP_ACT_ERRNO', args: [argument] }
  return { defaultAction: 'SCMP_ACT_ALLOW', syscalls: [rule] }
}
