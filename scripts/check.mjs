/** `npm run check`: types, format, lint, in both languages; no tests. */
import { gates } from './test/gates.mjs'
import { Report, runGates } from './test/report.mjs'

const report = new Report()
await runGates(gates, report)
process.exitCode = report.close()
