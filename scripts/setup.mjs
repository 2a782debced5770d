/**
 * Set-up: everything that `npm run demo`, `npm test` and `npm start` need, built once and then found.
 * Plain .mjs, because it starts under whatever Node the machine has. Usage: npm run setup
 */
import { rmSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { collect, writeManifest } from './setup/artifacts.mjs'
import { dockerRegistry, installPackages, PACKAGES } from './setup/debian.mjs'
import { helloDisk, initDisk, scratchDisk, volumeDisk } from './setup/disks.mjs'
import { guestKernel } from './setup/kernel.mjs'
import { withLock } from './setup/lock.mjs'
import { addon, rustPrograms, selfTestPrograms } from './setup/native.mjs'
import { installNode, installPackagesOfNpm } from './setup/node.mjs'
import { tools } from './setup/paths.mjs'
import { checkPrerequisites, remarks } from './setup/prerequisites.mjs'
import { Progress } from './setup/progress.mjs'
import { Log } from './setup/run.mjs'

const PROGRAM = 0o755
const DATA = 0o644

/** Name, log file, work. Each takes what earlier ones found and may add to it. */
const steps = [
  [
    'Debian packages',
    'debian',
    async (found, log, working) => {
      await installPackages(PACKAGES, log, working)
      found.registry = await dockerRegistry(log, working)
    },
  ],
  ['Node 24', 'node', (_found, log, working) => installNode(log, working)],
  ['npm packages', 'npm', (_found, log, working) => installPackagesOfNpm(log, working)],
  [
    'guest kernel',
    'kernel',
    async (found, log, working) => {
      const folder = await guestKernel(log, working)
      found.files = Object.fromEntries(
        ['vmlinux', 'vmlinux-softkvm'].map((name) => [
          name,
          { from: path.join(folder, name), mode: DATA },
        ]),
      )
    },
  ],
  [
    'spawn, VMM and guest-init',
    'rust',
    async (found, log, working) => {
      found.programs = await rustPrograms(log, working)
      for (const name of ['casemate-vmm', 'casemate-spawn', 'casemate-container']) {
        found.files[name] = { from: found.programs[name], mode: PROGRAM }
      }
    },
  ],
  [
    'addon',
    'addon',
    async (found, log, working) => {
      found.addon = await addon(log, working)
    },
  ],
  [
    'disks and manifest',
    'disks',
    async (found, log, working) => {
      const selfTest = await selfTestPrograms(log)
      found.files['attack.elf'] = { from: selfTest.attack, mode: DATA }
      collect(found.files)
      found.init = await initDisk(found.programs['guest-init'], log, working)
      found.hello = await helloDisk(selfTest.hello, log, working)
      rmSync(selfTest.work, { recursive: true })
      found.scratch = await scratchDisk(log, working)
      found.volume = await volumeDisk(log, working)
      writeManifest(found)
    },
  ],
]

async function runSteps(progress) {
  const found = {}
  for (const [name, file, work] of steps) {
    progress.begin(name)
    const log = new Log(file, (line) => progress.line(line))
    try {
      await work(found, log, (what) => progress.working(what))
    } finally {
      await log.close()
    }
    progress.end()
  }
}

/** Ends in order on a signal, so that what was begun is stopped and undone (listeners of `exit`). */
const ENDINGS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 }

async function withEndings(work) {
  const listeners = Object.entries(ENDINGS).map(([signal, code]) => [
    signal,
    () => process.exit(code),
  ])
  for (const [signal, listener] of listeners) process.on(signal, listener)
  try {
    await work()
  } finally {
    for (const [signal, listener] of listeners) process.removeListener(signal, listener)
  }
}

/** Runs set-up; says on stderr what it does. Returns whether it succeeded. */
export async function setUp() {
  const progress = new Progress(steps.length)
  progress.begin('prerequisites')
  const wait = () => progress.note('waiting for another set-up of this checkout')
  const lock = path.join(tools, 'setup.lock')
  try {
    checkPrerequisites() // before the lock: flock may be what is missing
    await withEndings(() => withLock(lock, wait, () => runSteps(progress)))
  } catch (error) {
    progress.fail(error)
    return false
  }
  for (const remark of remarks()) progress.note(remark)
  progress.finish()
  return true
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exitCode = (await setUp()) ? 0 : 1
}
