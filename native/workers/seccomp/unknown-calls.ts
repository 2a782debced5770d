/**
 * Calls newer than every rule fail with ENOSYS, before the profile is asked.
 *
 * A profile's default is EPERM, and C libraries take EPERM for an answer: they fall back to an older
 * call only on ENOSYS. Without this a new C library breaks on an old profile (runc learned it with
 * faccessat2 and clone3).
 */

/** mseal, the newest call that the default profile names. */
export const NEWEST_KNOWN_CALL = 462
const AUDIT_ARCH_X86_64 = 0xc000_003e
/** Calls of the x32 table have this bit: they are for the profile's own check of architecture. */
const X32_BIT = 0x4000_0000
const RETURN_ENOSYS = 0x0005_0000 + 38

/** Classic BPF (linux/bpf_common.h): load word absolute, jump if equal / greater or equal / greater. */
const LD_W_ABS = 0x20
const JEQ_K = 0x15
const JGE_K = 0x35
const JGT_K = 0x25
const RET_K = 0x06
/** Offsets in struct seccomp_data. */
const NR = 0
const ARCH = 4

/** struct sock_filter: u16 code, u8 jump if true, u8 jump if false, u32 k. */
function instruction(
  code: number,
  k: number,
  [yes, no]: readonly [number, number] = [0, 0],
): Buffer {
  const bytes = Buffer.alloc(8)
  bytes.writeUInt16LE(code, 0)
  bytes.writeUInt8(yes, 2)
  bytes.writeUInt8(no, 3)
  bytes.writeUInt32LE(k, 4)
  return bytes
}

/** The program with the check before it; its own jumps are relative, and so stay right. */
export function withUnknownCalls(program: Buffer): Buffer {
  return Buffer.concat([
    instruction(LD_W_ABS, ARCH),
    instruction(JEQ_K, AUDIT_ARCH_X86_64, [0, 4]),
    instruction(LD_W_ABS, NR),
    instruction(JGE_K, X32_BIT, [2, 0]),
    instruction(JGT_K, NEWEST_KNOWN_CALL, [0, 1]),
    instruction(RET_K, RETURN_ENOSYS),
    program,
  ])
}
