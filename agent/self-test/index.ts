/**
 * `casemate doctor --vm`: boots, restores and attacks test guests on this very host, with the programs
 * that pods run on, through a casemate-spawn of the test's own. Pods that run are not touched, no
 * tenant's byte is read, and nothing goes into the host's log, whose key this test does not have.
 */
import { createHash } from 'node:crypto'
import { closeSync, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import { startPrivateSpawn } from '../../native/self-test/private-spawn.ts'
import { SpawnError } from '../../native/spawn-client.ts'
import { type Artifacts, readArtifacts } from '../../native/up/artifacts.ts'
import { ATTACKS, type Attack, type Attacked, runAttack } from './attacks.ts'
import { type Figures, measure } from './figures.ts'
import { TestLog } from './guests.ts'

const NODE = 'self-test'

export type SelfTestCode = 'SELF_TEST_NOT_ROOT' | 'SELF_TEST_NO_KVM' | 'SELF_TEST_FAILED'

/** It could not be run, or its ordinary guest did not work. */
export class SelfTestError extends Error {
  override readonly name = 'SelfTestError'
  readonly code: SelfTestCode
  constructor(code: SelfTestCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
  }
}

export interface SelfTest {
  readonly kvm: 'hardware' | 'software'
  readonly figures: Figures
  readonly attacks: readonly Attacked[]
  /** VMM, kernel, init, image and the empty scratch disk are byte for byte as before. */
  readonly files_unchanged: boolean
  /** All attacks held, and no file was changed. */
  readonly held: boolean
}

export interface SelfTestPlan {
  readonly checkout: string
  /** Told what is being done, for people. */
  readonly tell: (line: string) => void
  /** In place of all. */
  readonly attacks?: readonly Attack[]
  /** Where to look for a template, in place of building one. */
  readonly templates?: string
}

/** @throws SelfTestError */
function checkHost(): void {
  if (process.geteuid?.() !== 0) {
    const sentence = 'doctor --vm needs root: it makes namespaces, cgroups and user ids. Use sudo.'
    throw new SelfTestError('SELF_TEST_NOT_ROOT', sentence)
  }
  try {
    closeSync(openSync('/dev/kvm', 'r+'))
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    const sentence = `/dev/kvm cannot be used: ${why}. \`casemate doctor\` says what is missing.`
    throw new SelfTestError('SELF_TEST_NO_KVM', sentence, { cause })
  }
}

/** One digest over all that no guest may change. */
function digestOf({ vmm, kernel, init, hello, scratch }: Artifacts): string {
  const hash = createHash('sha256')
  for (const file of [vmm, kernel, init, hello.path, scratch.path]) {
    hash.update(createHash('sha256').update(readFileSync(file)).digest())
  }
  return hash.digest('hex')
}

interface Place {
  readonly artifacts: Artifacts
  readonly directory: string
  readonly log: TestLog
}

/** @throws SelfTestError when the ordinary guest does not come to its word */
async function ordinary({ artifacts, directory, log }: Place, templates: string | undefined) {
  const spawnDirectory = path.join(directory, 'ordinary')
  const { kernel } = artifacts
  const plan = { directory: spawnDirectory, node: NODE, artifacts, kernel, vkey: log.vkey }
  const spawn = await startPrivateSpawn(templates === undefined ? plan : { ...plan, templates })
  try {
    const { kvm, kvm_reason: why } = spawn.host
    if (kvm === null) throw new SelfTestError('SELF_TEST_NO_KVM', `No KVM to use: ${why ?? ''}.`)
    const figures = await measure({ spawn, log, artifacts, directory: spawnDirectory })
    return { kvm, figures }
  } catch (cause) {
    if (cause instanceof SelfTestError) throw cause
    const code = cause instanceof SpawnError ? ` (${cause.code})` : ''
    const sentence = `an ordinary guest does not work here: ${cause instanceof Error ? cause.message : String(cause)}${code}`
    throw new SelfTestError('SELF_TEST_FAILED', sentence, { cause })
  } finally {
    await spawn.end()
  }
}

async function runIn(place: Place, plan: SelfTestPlan): Promise<SelfTest> {
  const { tell, attacks = ATTACKS } = plan
  const { artifacts, directory, log } = place
  const before = digestOf(artifacts)
  tell('booting and restoring an ordinary guest')
  const { kvm, figures } = await ordinary(place, plan.templates)
  const found: Attacked[] = []
  for (const [index, attack] of attacks.entries()) {
    tell(`attack ${index + 1} of ${attacks.length}: ${attack.what}`)
    const call = {
      log,
      artifacts,
      node: NODE,
      isSoftware: kvm === 'software',
      directory: path.join(directory, `attack-${index}`),
    }
    // oxlint-disable-next-line no-await-in-loop -- each has the host to itself
    found.push(await runAttack(call, attack))
  }
  const files_unchanged = digestOf(artifacts) === before
  const held = files_unchanged && found.every((one) => one.held)
  return { kvm, figures, attacks: found, files_unchanged, held }
}

/** @throws SelfTestError when it cannot be run at all */
export async function selfTest(plan: SelfTestPlan): Promise<SelfTest> {
  checkHost()
  const artifacts = readArtifacts(plan.checkout, plan.checkout)
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-self-test-'))
  try {
    return await runIn({ artifacts, directory, log: new TestLog() }, plan)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
