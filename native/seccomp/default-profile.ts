/** The seccomp profile of a pod that brings none: an allow list that follows its capabilities. */
import { ALLOWED_WITH, ALWAYS_ALLOWED } from './default-calls.ts'
import type { SeccompArgument, SeccompProfile, SeccompRule } from './profile.ts'

const EPERM = 1
const ENOSYS = 38
/** Host and guest talk over AF_VSOCK on other platforms: nothing of a pod's business. */
const AF_VSOCK = 40
/** CLONE_NEWNS | NEWCGROUP | NEWUTS | NEWIPC | NEWUSER | NEWPID | NEWNET (sched.h). */
const CLONE_NAMESPACES = 0x7e02_0000
/** PER_LINUX, PER_LINUX32, each with and without UNAME26; and the question "which is it?". */
const PERSONALITIES = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff]

const allow = (names: readonly string[], args: readonly SeccompArgument[] = []): SeccompRule => ({
  names,
  action: 'SCMP_ACT_ALLOW',
  errnoRet: null,
  args,
})

/**
 * New namespaces need CAP_SYS_ADMIN. clone3 passes its flags in memory, where no filter can look:
 * ENOSYS makes C libraries fall back to clone, which EPERM would not.
 */
const cloneWithoutNamespaces: readonly SeccompRule[] = [
  allow(['clone'], [{ index: 0, value: CLONE_NAMESPACES, valueTwo: 0, op: 'SCMP_CMP_MASKED_EQ' }]),
  { names: ['clone3'], action: 'SCMP_ACT_ERRNO', errnoRet: ENOSYS, args: [] },
]

/** The profile for a process whose bounding set is `capabilities` (full names). */
export function defaultSeccompProfile(capabilities: readonly string[]): SeccompProfile {
  const more = new Set(capabilities.flatMap((name) => ALLOWED_WITH[name] ?? []))
  return {
    defaultAction: 'SCMP_ACT_ERRNO',
    defaultErrnoRet: EPERM,
    syscalls: [
      allow(ALWAYS_ALLOWED),
      allow(['socket'], [{ index: 0, value: AF_VSOCK, valueTwo: 0, op: 'SCMP_CMP_NE' }]),
      ...PERSONALITIES.map((value) =>
        allow(['personality'], [{ index: 0, value, valueTwo: 0, op: 'SCMP_CMP_EQ' }]),
      ),
      ...(more.size === 0 ? [] : [allow([...more].toSorted())]),
      ...(more.has('clone') ? [] : cloneWithoutNamespaces),
    ],
  }
}
