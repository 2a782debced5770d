/**
 * The processor: threads of one core, and its known weaknesses in the words of the kernel
 * (/sys/devices/system/cpu/vulnerabilities; Linux Documentation/admin-guide/hw-vuln).
 */
import type { HostDescription } from '../../native/spawn-answers.ts'
import { type HostCheck, ok, severe, unknown, warning } from './check.ts'
import type { HostRoot } from './root.ts'

const WEAKNESSES = 'sys/devices/system/cpu/vulnerabilities'
const WEAKNESSES_MAX = 64
/** Of the kernel's sentence. */
const SENTENCE_CHARACTERS_MAX = 200

/** Two threads of a core share its caches and buffers. */
export async function smt(root: HostRoot, { host }: HostDescription): Promise<HostCheck> {
  const id = 'smt'
  const active = await root.text('sys/devices/system/cpu/smt/active')
  if (active === '0') return ok(id, 'off')
  if (active !== '1') return unknown(id, 'Whether SMT is on (smt/active)')
  if (host.core_scheduling) return ok(id, 'on, and each VM has the threads of a core to itself')
  return severe(
    id,
    'SMT is on and this kernel schedules no cores: VMs of two tenants run on the threads of one core, where each can watch the other.',
    'echo off > /sys/devices/system/cpu/smt/control and boot with nosmt, or run a kernel with CONFIG_SCHED_CORE.',
  )
}

/**
 * Warnings at most. spec_store_bypass: within one address space, and guests switch it off for
 * themselves. old_microcode: what the old one lacks is in the other files.
 */
const MINOR: ReadonlySet<string> = new Set(['old_microcode', 'spec_store_bypass'])

/** What a kernel says that is a guest itself. */
const HOSTED = /^Unknown: (?:Dependent on hypervisor status|running under hypervisor)$/iu

/** What the kernel's sentence amounts to. */
export type Reading =
  | 'fine'
  /** A mitigation is on, and the other thread of the core gets past it. */
  | 'smt'
  /** This host is a guest itself, and only its own host knows. */
  | 'hosted'
  | 'vulnerable'

/**
 * Reads a sentence such as `Mitigation: Clear CPU buffers; SMT vulnerable`, part by part: the head
 * says whether there is a mitigation at all, a later part where it has a hole. Sentences of a form
 * not known here count as vulnerable.
 */
export function readingOf(sentence: string): Reading {
  if (sentence === 'Not affected') return 'fine'
  if (HOSTED.test(sentence)) return 'hosted'
  // Of itlb_multihit, which is about guests alone.
  const [head = '', ...parts] = sentence.replace(/^KVM: /u, '').split(/[;,] ?/u)
  if (!head.startsWith('Mitigation: ')) return 'vulnerable'
  const holes = parts.filter((part) => /vulnerable/iu.test(part))
  if (holes.some((part) => part !== 'SMT vulnerable')) return 'vulnerable'
  if (holes.length > 0) return 'smt'
  return parts.includes('SMT Host state unknown') ? 'hosted' : 'fine'
}

const idOf = (file: string): string => `cpu-${file.toLowerCase().replaceAll(/[^a-z0-9]+/gu, '-')}`

const MICROCODE =
  'Update the processor’s microcode (intel-microcode, amd64-microcode) and the kernel, and boot without mitigations=off or the like'

function judge(file: string, sentence: string, host: HostDescription): HostCheck | null {
  const [id, reading] = [idOf(file), readingOf(sentence)]
  const said = `The kernel says of ${file}: ${sentence.slice(0, SENTENCE_CHARACTERS_MAX)}`
  if (reading === 'fine') return null
  if (reading === 'hosted') {
    return warning(
      id,
      `${said}. This host is itself a guest.`,
      'Ask who runs the machine below it.',
    )
  }
  if (reading === 'smt') {
    const fix = 'Turn SMT off: echo off > /sys/devices/system/cpu/smt/control, and boot with nosmt.'
    return host.host.core_scheduling
      ? warning(id, `${said}. Core scheduling keeps VMs apart, not VMs and the kernel.`, fix)
      : severe(id, `${said}.`, fix)
  }
  if (MINOR.has(file)) return warning(id, `${said}.`, `${MICROCODE}.`)
  return severe(
    id,
    `${said}. Guests can use it against the host or against each other.`,
    `${MICROCODE}.`,
  )
}

/** One finding for each weakness that is open; when there is none, one line that says so. */
export async function weaknesses(
  root: HostRoot,
  host: HostDescription,
): Promise<readonly HostCheck[]> {
  const id = 'cpu'
  const files = await root.names(WEAKNESSES)
  if (files === null || files.length > WEAKNESSES_MAX) {
    return [unknown(id, 'Which weaknesses the processor has (vulnerabilities)')]
  }
  const judged = await Promise.all(
    files.map(async (file) => {
      const sentence = await root.text(`${WEAKNESSES}/${file}`)
      return judge(file, sentence ?? 'no such file', host)
    }),
  )
  const open = judged.filter((one) => one !== null)
  return open.length > 0
    ? open
    : [ok(id, `${files.length} known weaknesses: not affected, or mitigated`)]
}
