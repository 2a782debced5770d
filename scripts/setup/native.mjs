/** The programs written in Rust, and the N-API addon. */
import { cpSync, existsSync, mkdirSync, rmSync } from 'node:fs'
import path from 'node:path'
import { artifacts, cargoRelease, inRoot, node24 } from './paths.mjs'

/** Packages of the Cargo workspace; each makes a program of its own name. */
const PROGRAMS = ['casemate-vmm', 'casemate-spawn', 'casemate-container', 'guest-init']

/** Builds the static programs; returns name -> path in cargo's target folder. */
export async function rustPrograms(log, working) {
  const packages = PROGRAMS.flatMap((name) => ['-p', name])
  const show = log.onLine
  let announced = false
  log.onLine = (line) => {
    const busy = /^\s*(?:Compiling|Downloading|Downloaded|Updating) /u.test(line)
    if (busy && !announced) working('compiling')
    announced ||= busy
    show(line)
  }
  await log.run(['cargo', 'build', '--release', '--locked', ...packages], {
    cwd: inRoot('native'),
    advice:
      "if crates could not be fetched, check the network; otherwise the log has the compiler's words",
  })
  return Object.fromEntries(PROGRAMS.map((name) => [name, path.join(cargoRelease, name)]))
}

/** One compiler call, skipped by the script itself when nothing changed. Returns the addon or null. */
export async function addon(log, working) {
  const script = inRoot('native/addon/build.mjs')
  if (!existsSync(script)) return null
  const output = inRoot('native/addon/build/casemate.node')
  if (!existsSync(output)) working('compiling')
  await log.run([node24, script])
  return output
}

/**
 * What `doctor --vm` starts: a guest that attacks its VMM, as a kernel image, and a program for an
 * ordinary one. Both take less time to compile than to look whether they are as they should be.
 */
export async function selfTestPrograms(log) {
  const work = path.join(artifacts, 'self-test.work')
  rmSync(work, { recursive: true, force: true })
  mkdirSync(artifacts, { recursive: true })
  cpSync(inRoot('native/vmm/tests/hostile/guest'), work, { recursive: true })
  await log.run(['gcc', '@flags', '-o', 'guest32'], { cwd: work })
  await log.run(['objcopy', '-O', 'elf64-x86-64', 'guest32', 'attack'], { cwd: work })
  const flags = ['-static', '-Os', '-s', '-Wall', '-Wextra', '-Werror']
  const source = inRoot('native/self-test/hello.c')
  await log.run(['gcc', ...flags, '-o', 'hello', source], { cwd: work })
  return { attack: path.join(work, 'attack'), hello: path.join(work, 'hello'), work }
}
