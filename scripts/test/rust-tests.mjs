/** Runs the Rust tests and each fuzz target for a short time. */
import { existsSync, mkdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { cargoFuzz } from '../setup/cargo-fuzz.mjs'
import { inRoot } from '../setup/paths.mjs'
import { Log } from '../setup/run.mjs'
import { run } from './report.mjs'

const native = inRoot('native')
const FUZZ_SECONDS = 30

/** Adds up cargo's `test result:` lines; a test binary has one, and so have doc tests. */
export function countCargo(output) {
  const counts = { passed: 0, failed: 0, skipped: 0 }
  for (const [, passed, failed, ignored] of output.matchAll(
    /^test result: \w+\. (\d+) passed; (\d+) failed; (\d+) ignored/gmu,
  )) {
    counts.passed += Number(passed)
    counts.failed += Number(failed)
    counts.skipped += Number(ignored)
  }
  return counts
}

export async function runCargoTests(report) {
  report.heading('Rust tests')
  const { ok, output, milliseconds } = await run(
    ['cargo', 'test', '--workspace', '--locked', '--no-fail-fast'],
    { cwd: native },
  )
  const counts = countCargo(output)
  report.add(counts)
  for (const [, name] of output.matchAll(/^test (\S+) \.\.\. FAILED$/gmu)) report.failure(name)
  if (!ok && counts.failed === 0) report.fail('cargo test')
  else if (ok)
    process.stdout.write(`ok    ${counts.passed} tests (${(milliseconds / 1000).toFixed(1)} s)\n`)
}

/** Names of the targets in native/fuzz/Cargo.toml. */
export function fuzzTargets() {
  const text = readFileSync(path.join(native, 'fuzz/Cargo.toml'), 'utf8')
  return [...text.matchAll(/\[\[bin\]\]\s+name = "([^"]+)"/gu)].map((found) => found[1])
}

// Sanitizers need unstable flags; the pinned toolchain has them behind this variable.
const options = { cwd: path.join(native, 'fuzz'), env: { RUSTC_BOOTSTRAP: '1' } }

/** cargo-fuzz and the built targets: its path, or a sentence about what failed. */
export async function buildFuzzTargets() {
  const log = new Log('cargo-fuzz')
  const program = await cargoFuzz(log).catch((error) => {
    process.stdout.write(`${error.message}\n`)
    return null
  })
  await log.close()
  if (program === null) return { problem: 'installing cargo-fuzz' }
  const built = await run([program, 'fuzz', 'build'], options)
  return built.ok ? { program } : { problem: 'building the fuzz targets' }
}

/**
 * Runs one target for `seconds`; `quiet` keeps its output until it fails. It begins with the corpus of the checkout, and
 * what it learns goes to the build folder.
 */
export function fuzz(program, target, seconds, quiet = true) {
  const learnt = path.join(options.cwd, 'target/learnt', target)
  mkdirSync(learnt, { recursive: true })
  const folders = [learnt, `corpus/${target}`]
  const command = [program, 'fuzz', 'run', target, ...folders, '--', `-max_total_time=${seconds}`]
  return run(command, { ...options, quiet })
}

export async function runFuzzTargets(report) {
  report.heading(`fuzz targets, ${FUZZ_SECONDS} s each`)
  if (!existsSync(path.join(native, 'fuzz/Cargo.toml'))) {
    report.skip('fuzz targets', 'native/fuzz is not in this checkout')
    return
  }
  const { program, problem } = await buildFuzzTargets()
  if (problem !== undefined) {
    report.fail(problem)
    return
  }
  const targets = fuzzTargets()
  const runNext = async () => {
    for (let target = targets.shift(); target !== undefined; target = targets.shift()) {
      const { ok, milliseconds } = await fuzz(program, target, FUZZ_SECONDS)
      if (ok) report.pass(target, milliseconds)
      else report.fail(`fuzz target ${target}`)
    }
  }
  await Promise.all([runNext(), runNext()]) // a target has one thread
}
