/** Runs the Rust tests and each fuzz target for a short time. */
import { existsSync, readFileSync } from 'node:fs'
import path from 'node:path'
import { cargoFuzz } from '../setup/cargo-fuzz.mjs'
import { inRoot } from '../setup/paths.mjs'
import { Log } from '../setup/run.mjs'
import { run } from './report.mjs'

const native = inRoot('native')
const FUZZ_SECONDS = 20

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
function fuzzTargets() {
  const text = readFileSync(path.join(native, 'fuzz/Cargo.toml'), 'utf8')
  return [...text.matchAll(/\[\[bin\]\]\s+name = "([^"]+)"/gu)].map((found) => found[1])
}

export async function runFuzzTargets(report) {
  report.heading(`fuzz targets, ${FUZZ_SECONDS} s each`)
  if (!existsSync(path.join(native, 'fuzz/Cargo.toml'))) {
    report.skip('fuzz targets', 'native/fuzz is not in this checkout')
    return
  }
  const log = new Log('cargo-fuzz')
  const program = await cargoFuzz(log).catch((error) => {
    process.stdout.write(`${error.message}\n`)
    return null
  })
  await log.close()
  if (program === null) {
    report.fail('installing cargo-fuzz')
    return
  }
  // Sanitizers need unstable flags; the pinned toolchain has them behind this variable.
  const options = { cwd: path.join(native, 'fuzz'), env: { RUSTC_BOOTSTRAP: '1' } }
  const built = await run([program, 'fuzz', 'build'], options)
  const targets = built.ok ? fuzzTargets() : []
  const runNext = async () => {
    for (let target = targets.shift(); target !== undefined; target = targets.shift()) {
      const { ok, milliseconds } = await run(
        [program, 'fuzz', 'run', target, '--', `-max_total_time=${FUZZ_SECONDS}`],
        options,
      )
      if (ok) report.pass(target, milliseconds)
      else report.fail(`fuzz target ${target}`)
    }
  }
  await Promise.all([runNext(), runNext()]) // a target has one thread
  if (!built.ok) report.fail('building the fuzz targets')
}
