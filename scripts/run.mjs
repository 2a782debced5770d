/**
 * Starts a script or program of the checkout under Node 24, whatever Node npm itself runs in.
 *
 *   node scripts/run.mjs demo|test|check|bench|fuzz [arguments]   set-up, then scripts/<name>.mjs; bench:peers is bench --peers
 *   node scripts/run.mjs start [arguments]                        set-up, then `casemate up` in the foreground
 *   node scripts/run.mjs casemate [arguments]                     the CLI; set-up only when there was none yet
 */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import path from 'node:path'
import { artifacts, inRoot, node24 } from './setup/paths.mjs'
import { environment } from './setup/run.mjs'
import { setUp } from './setup.mjs'

const CLI = 'agent/cli/main.ts'
const COMMANDS = {
  demo: ['scripts/demo.mjs'],
  test: ['scripts/test.mjs'],
  check: ['scripts/check.mjs'],
  bench: ['scripts/bench.mjs'],
  fuzz: ['scripts/fuzz.mjs'],
  'bench:peers': ['scripts/bench.mjs', '--peers'],
  start: [CLI, 'up'],
  casemate: [CLI],
}
const USAGE_ERROR = 2

/** Exit code of a shell for a process ended by a signal: 128 and the signal's number. */
const SIGNAL_NUMBERS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGKILL: 9, SIGTERM: 15 }
const exitCodeOf = (code, signal) => code ?? 128 + (SIGNAL_NUMBERS[signal] ?? 0)

/** Runs the child in the foreground, hands signals on to it and ends as it ends. */
function become(args) {
  const child = spawn(node24, args, { stdio: 'inherit', env: environment() })
  // A terminal sends SIGINT to the whole group, so the child has it already; the others come to us alone.
  process.on('SIGINT', () => process.stdin.isTTY || child.kill('SIGINT'))
  for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
  child.on('error', (error) => {
    process.stderr.write(`could not start ${node24}: ${error.message}\n`)
    process.exitCode = 1
  })
  child.on('close', (code, signal) => process.exit(exitCodeOf(code, signal)))
}

async function main([name, ...rest]) {
  const command = COMMANDS[name]
  const script = command?.[0]
  if (script === undefined || !existsSync(inRoot(script))) {
    const why = script === undefined ? `no command ${name}` : `${script} is not in this checkout`
    process.stderr.write(`${why}; there are: ${Object.keys(COMMANDS).join(', ')}\n`)
    process.exitCode = USAGE_ERROR
    return
  }
  const ready = existsSync(node24) && existsSync(path.join(artifacts, 'artifacts.json'))
  if (!(name === 'casemate' && ready) && !(await setUp())) {
    process.exitCode = 1
    return
  }
  become([inRoot(script), ...command.slice(1), ...rest])
}

await main(process.argv.slice(2))
