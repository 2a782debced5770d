/**
 * The system's libseccomp through koffi: an OCI profile in, a BPF program out. It runs in a process
 * of its own, because a wrong pointer here would otherwise be the agent's.
 */
import { closeSync, fstatSync, readSync } from 'node:fs'
import koffi from 'koffi'
import type {
  SeccompAction,
  SeccompArgument,
  SeccompOperator,
  SeccompProfile,
  SeccompRule,
} from '../../seccomp/profile.ts'
import { withUnknownCalls } from './unknown-calls.ts'

/** The profile asks for something that cannot be compiled. */
export class SeccompError extends Error {
  override readonly name = 'SeccompError'
  readonly code: 'SECCOMP_UNKNOWN_SYSCALL' | 'SECCOMP_RULE' | 'SECCOMP_LIBRARY'
  constructor(code: SeccompError['code'], message: string) {
    super(message)
    this.code = code
  }
}

/** libseccomp's `enum scmp_compare`. */
const operators: Readonly<Record<SeccompOperator, number>> = {
  SCMP_CMP_NE: 1,
  SCMP_CMP_LT: 2,
  SCMP_CMP_LE: 3,
  SCMP_CMP_EQ: 4,
  SCMP_CMP_GE: 5,
  SCMP_CMP_GT: 6,
  SCMP_CMP_MASKED_EQ: 7,
}

/** linux/seccomp.h, SECCOMP_RET_*. */
const actions: Readonly<Record<SeccompAction, number>> = {
  SCMP_ACT_ALLOW: 0x7fff_0000,
  SCMP_ACT_ERRNO: 0x0005_0000,
  SCMP_ACT_KILL: 0,
  SCMP_ACT_KILL_PROCESS: 0x8000_0000,
  SCMP_ACT_KILL_THREAD: 0,
  SCMP_ACT_LOG: 0x7ffc_0000,
  SCMP_ACT_TRAP: 0x0003_0000,
}

const actionOf = (action: SeccompAction, errno: number | null): number =>
  action === 'SCMP_ACT_ERRNO' ? actions[action] + (errno ?? 1) : actions[action]

/** Calls that came after libseccomp 2.5.4; their numbers are the same on every architecture. */
const newer: Readonly<Record<string, number>> = {
  cachestat: 451,
  fchmodat2: 452,
  map_shadow_stack: 453,
  futex_wake: 454,
  futex_wait: 455,
  futex_requeue: 456,
  mseal: 462,
}

const SCMP_FLTATR_CTL_OPTIMIZE = 8
/** __NR_SCMP_ERROR: libseccomp does not know the name. */
const UNKNOWN = -1
/** BPF_MAXINSNS of 8 bytes. */
const PROGRAM_BYTES_MAX = 4096 * 8

const library = koffi.load('libseccomp.so.2')
const argument = koffi.struct('scmp_arg_cmp', {
  arg: 'uint',
  op: 'int',
  datum_a: 'uint64_t',
  datum_b: 'uint64_t',
})
const init = library.func('void *seccomp_init(uint32_t def_action)')
const release = library.func('void seccomp_release(void *ctx)')
const resolveName = library.func('int seccomp_syscall_resolve_name(const char *name)')
const setAttribute = library.func('int seccomp_attr_set(void *ctx, int attr, uint32_t value)')
const addRule = library.func('seccomp_rule_add_array', 'int', [
  'void *',
  'uint32_t',
  'int',
  'uint',
  koffi.pointer(argument),
])
const exportBpf = library.func('int seccomp_export_bpf(void *ctx, int fd)')
const memfdCreate = koffi.load('libc.so.6').func('int memfd_create(const char *name, uint flags)')

function check(status: unknown, what: string): void {
  if (status === 0) return
  throw new SeccompError('SECCOMP_RULE', `libseccomp refused ${what} (error ${String(status)})`)
}

function numberOf(name: string): number {
  const found: unknown = resolveName(name)
  const number = found === UNKNOWN ? newer[name] : found
  if (typeof number === 'number') return number
  throw new SeccompError(
    'SECCOMP_UNKNOWN_SYSCALL',
    `no system call is called ${JSON.stringify(name)}`,
  )
}

const comparison = ({ index, op, value, valueTwo }: SeccompArgument): object => ({
  arg: index,
  op: operators[op],
  datum_a: value,
  datum_b: valueTwo,
})

function add(context: unknown, rule: SeccompRule, byDefault: number): void {
  const action = actionOf(rule.action, rule.errnoRet)
  if (action === byDefault) return // libseccomp refuses rules that change nothing
  const args = rule.args.map(comparison)
  for (const name of rule.names) {
    check(addRule(context, action, numberOf(name), args.length, args), `the rule for ${name}`)
  }
}

/** The program of a context, through a memfd: libseccomp 2.5 writes to descriptors only. */
function exported(context: unknown): Buffer {
  const fd: unknown = memfdCreate('seccomp', 1)
  if (typeof fd !== 'number' || fd < 0) {
    throw new SeccompError('SECCOMP_LIBRARY', 'memfd_create failed')
  }
  try {
    check(exportBpf(context, fd), 'to export the program')
    const program = Buffer.alloc(Math.min(fstatSync(fd).size, PROGRAM_BYTES_MAX + 1))
    readSync(fd, program, 0, program.length, 0)
    return program
  } finally {
    closeSync(fd)
  }
}

/**
 * Compiles for x86-64 only: calls of the 32-bit and x32 tables kill the process (libseccomp's
 * action for a wrong architecture). @throws SeccompError
 */
export function compile(profile: SeccompProfile): Buffer {
  const byDefault = actionOf(profile.defaultAction, profile.defaultErrnoRet)
  const context: unknown = init(byDefault)
  if (context === null) throw new SeccompError('SECCOMP_LIBRARY', 'seccomp_init failed')
  try {
    check(setAttribute(context, SCMP_FLTATR_CTL_OPTIMIZE, 2), 'to order calls as a binary tree')
    for (const rule of profile.syscalls) add(context, rule, byDefault)
    const program = withUnknownCalls(exported(context))
    if (program.length > PROGRAM_BYTES_MAX) {
      throw new SeccompError('SECCOMP_RULE', 'the program is longer than the kernel takes')
    }
    return program
  } finally {
    release(context)
  }
}
