/** `casemate doctor --vm`: the self-test, as tables or JSON. Needs no agent. */
import path from 'node:path'
import { type SelfTest, SelfTestError, selfTest } from '../self-test/index.ts'
import { type GlobalOptions, show } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { field, items, plain, printTable, say } from './output.ts'

const checkout = path.resolve(import.meta.dirname, '../..')

const EXITS = {
  SELF_TEST_NOT_ROOT: EXIT.authentication,
  SELF_TEST_NO_KVM: EXIT.isolation,
  SELF_TEST_FAILED: EXIT.error,
} as const

const FIGURES = [
  ['template_ms', 'ms', 'a template: jail, cold boot to HELLO, snapshot, digests'],
  ['jail_ms', 'ms', 'a launch until its VMM is started: ticket, descriptors, disk, jail'],
  ['first_output_ms', 'ms', 'a launch until its app’s first output, restored'],
  ['overhead_kib', 'KiB', 'memory of the VMM beside its guest’s'],
  ['peak_mib', 'MiB', 'memory of guest and VMM, the most'],
] as const

function printSelfTest(found: SelfTest): void {
  const figures = FIGURES.map(([name, unit, what]) => [
    what,
    `${field(found, 'figures', name) || '-'} ${unit}`,
  ])
  printTable(['FIGURE', `ON ${found.kvm} KVM`], figures)
  const rows = items(found, 'attacks').map((attack) => [
    field(attack, 'what'),
    field(attack, 'held') === 'true' ? 'held' : 'FAILED',
    [field(attack, 'end'), field(attack, 'text')].filter((part) => part !== '').join(': '),
  ])
  printTable(['ATTACK', 'WALLS', 'THE VMM'], rows)
  const files = found.files_unchanged ? 'unchanged' : 'CHANGED'
  process.stdout.write(`${plain(`files of the host: ${files}`)}\n`)
  if (found.kvm === 'software') say('software KVM: figures and attacks of hardware are others')
}

/** @throws SelfTestError with its exit code */
export async function runSelfTest(options: GlobalOptions): Promise<void> {
  try {
    const found = await selfTest({ checkout, tell: say })
    show(options, found, () => printSelfTest(found))
    if (!found.held) {
      say('casemate: not all walls held; do not run tenants’ pods here, and report it: SECURITY.md')
      process.exitCode = EXIT.error
    }
  } catch (error) {
    if (!(error instanceof SelfTestError)) throw error
    throw Object.assign(error, { exitCode: EXITS[error.code] })
  }
}
