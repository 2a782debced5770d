/** Runs the TypeScript tests with node:test. */
import { readdirSync } from 'node:fs'
import path from 'node:path'
import { readJson } from '../setup/files.mjs'
import { inRoot, logs, node24 } from '../setup/paths.mjs'
import { run } from './report.mjs'

const HERE = path.dirname(new URL(import.meta.url).pathname)
/** Tests with virtual machines and other people's programs: after the others, whom they would slow down. */
const REAL_PARTS = ['test/peers/', 'test/system/']
/** As many as a machine has processors at least. */
const AT_ONCE = 2
/** A file that hangs is ended after this, so that a run always ends. */
const FILE_MINUTES_MAX = 45

const hasRealParts = (name) => REAL_PARTS.some((prefix) => name.startsWith(prefix))

export function testFiles(wanted) {
  const all = readdirSync(inRoot('test'), { recursive: true, encoding: 'utf8' })
    .filter((name) => name.endsWith('.test.ts'))
    .map((name) => path.join('test', name))
    .toSorted()
  const prefixes = wanted.map((name) => path.relative(inRoot(), path.resolve(name)))
  return prefixes.length === 0
    ? all
    : all.filter((name) => prefixes.some((prefix) => name.startsWith(prefix)))
}

async function runFiles(title, files, report) {
  if (files.length === 0) return
  report.heading(`${title}: ${files.length} files`)
  const counts = path.join(logs, `node-tests-${process.pid}.json`)
  const options = [
    '--test',
    `--test-concurrency=${AT_ONCE}`,
    `--test-timeout=${FILE_MINUTES_MAX * 60_000}`,
    '--test-reporter=spec',
    '--test-reporter-destination=stdout',
    `--test-reporter=${path.join(HERE, 'counting-reporter.mjs')}`,
    `--test-reporter-destination=${counts}`,
  ]
  const { ok } = await run([node24, ...options, ...files], { cwd: inRoot(), quiet: false })
  const seen = readJson(counts)
  report.add(seen ?? {})
  for (const failure of seen?.failures ?? []) report.failure(failure)
  if (seen === null || (!ok && seen.failed === 0)) report.fail(`${title} did not end as it should`)
}

export async function runNodeTests(wanted, report) {
  const files = testFiles(wanted)
  const [plain, real] = [files.filter((name) => !hasRealParts(name)), files.filter(hasRealParts)]
  await runFiles('TypeScript tests', plain, report)
  await runFiles('TypeScript tests with real parts', real, report)
  if (files.length === 0)
    report.fail(`no test file matches ${wanted.join(' ') || 'test/**/*.test.ts'}`)
}
