/** Counts what ran, and prints headings and outcomes of everything that is not a node test. */
import { spawn } from 'node:child_process'
import { environment } from '../setup/run.mjs'

export class Report {
  passed = 0
  failed = 0
  skipped = 0
  #failures = []

  heading(text) {
    process.stdout.write(`\n== ${text}\n`)
  }

  add({ passed = 0, failed = 0, skipped = 0 }) {
    this.passed += passed
    this.failed += failed
    this.skipped += skipped
  }

  pass(title, milliseconds) {
    this.passed += 1
    process.stdout.write(`ok    ${title} (${(milliseconds / 1000).toFixed(1)} s)\n`)
  }

  fail(title) {
    this.failed += 1
    this.failure(title)
    process.stdout.write(`FAIL  ${title}\n`)
  }

  /** Names a failure for the end, without counting it. */
  failure(title) {
    this.#failures.push(title)
  }

  skip(title, why) {
    this.skipped += 1
    process.stdout.write(`skip  ${title}: ${why}\n`)
  }

  /** The last lines of a run. Returns the exit code. */
  close() {
    if (this.#failures.length > 0) {
      this.heading('failed')
      for (const title of this.#failures) process.stdout.write(`  ${title}\n`)
    }
    process.stdout.write(
      `\n${this.passed} passed, ${this.failed} failed, ${this.skipped} skipped\n`,
    )
    return this.failed === 0 && this.passed > 0 ? 0 : 1
  }
}

/**
 * Runs a program. With `quiet` its output is kept and printed only when it fails.
 * Returns {ok, output, milliseconds}.
 */
export async function run(command, { cwd, env, quiet = true } = {}) {
  const [program, ...args] = command
  const since = Date.now()
  const child = spawn(program, args, {
    cwd,
    env: environment(env),
    stdio: ['ignore', quiet ? 'pipe' : 'inherit', quiet ? 'pipe' : 'inherit'],
  })
  const pieces = []
  for (const pipe of [child.stdout, child.stderr]) pipe?.on('data', (piece) => pieces.push(piece))
  const problem = await new Promise((resolve) => {
    child.on('error', (error) => resolve(error.message))
    child.on('close', (code, signal) => resolve(code === 0 ? null : `ended with ${signal ?? code}`))
  })
  const output = Buffer.concat(pieces).toString('utf8')
  if (problem !== null && quiet)
    process.stdout.write(`${output.trimEnd()}\n\`${command.join(' ')}\` ${problem}\n`)
  return { ok: problem === null, output, milliseconds: Date.now() - since }
}

export async function runGates(gates, report) {
  report.heading('quality gates')
  for (const [title, command, cwd] of gates) {
    const { ok, milliseconds } = await run(command, { cwd })
    if (ok) report.pass(title, milliseconds)
    else report.fail(title)
  }
}
