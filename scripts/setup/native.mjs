/** The programs written in Rust, and the N-API addon. */
import { existsSync } from 'node:fs'
import path from 'node:path'
import { cargoRelease, inRoot, node24 } from './paths.mjs'

/** Packages of the Cargo workspace; each makes a program of its own name. */
const PROGRAMS = ['casemate-vmm', 'casemate-spawn', 'guest-init']

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
