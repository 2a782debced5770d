/** Classic BPF as the kernel runs it for seccomp: the part that libseccomp's programs use. */

/** What a filter sees of a call: struct seccomp_data. */
export interface Call {
  readonly arch: number
  readonly nr: number
  readonly args: readonly bigint[]
}

export const X86_64 = 0xc000_003e

function word(call: Call, offset: number): number {
  if (offset === 0) return call.nr >>> 0
  if (offset === 4) return call.arch >>> 0
  const value = call.args[Math.floor((offset - 16) / 8)] ?? 0n
  return Number((offset % 8 === 0 ? value : value >> 32n) & 0xffff_ffffn)
}

const compares: Readonly<Record<number, (a: number, k: number) => boolean>> = {
  0x15: (a, k) => a === k,
  0x25: (a, k) => a > k,
  0x35: (a, k) => a >= k,
  0x45: (a, k) => (a & k) !== 0,
}

/** The SECCOMP_RET_* word that the program returns for a call. */
export function run(program: Buffer, call: Call): number {
  let a = 0
  for (let at = 0; at * 8 < program.length; at += 1) {
    const code = program.readUInt16LE(at * 8)
    const k = program.readUInt32LE(at * 8 + 4)
    const compare = compares[code]
    if (code === 0x06) return k
    else if (code === 0x20) a = word(call, k)
    else if (code === 0x54) a = (a & k) >>> 0
    else if (code === 0x05) at += k
    else if (compare !== undefined) at += program.readUInt8(at * 8 + (compare(a, k) ? 2 : 3))
    else throw new Error(`instruction ${code.toString(16)} is not known here`)
  }
  throw new Error('the program ran off its end')
}
