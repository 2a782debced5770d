/**
 * `npm test`: quality gates, TypeScript tests, Rust tests, fuzz targets, and one closing line.
 * `npm test -- test/policy test/audit/log.test.ts` runs the TypeScript tests under those paths only.
 */
import { goTools } from './setup/go-tools.mjs'
import { gates } from './test/gates.mjs'
import { runNodeTests, testFiles } from './test/node-tests.mjs'
import { Report, runGates } from './test/report.mjs'
import { runCargoTests, runFuzzTargets } from './test/rust-tests.mjs'

const wanted = process.argv.slice(2)
const report = new Report()
if (wanted.length === 0) await runGates(gates, report)
// Programs in Go are compared with in test/peers alone, and cosign takes minutes to build.
if (testFiles(wanted).some((name) => name.startsWith('test/peers/'))) {
  for (const sentence of await goTools()) process.stdout.write(`note: ${sentence}\n`)
}
await runNodeTests(wanted, report)
if (wanted.length === 0) {
  await runCargoTests(report)
  await runFuzzTargets(report)
}
process.exitCode = report.close()
