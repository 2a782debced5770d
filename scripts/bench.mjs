/**
 * Measurements: npm run bench [-- --json] [-- --only GROUP]...
 * docs/benchmarks.md says what each figure is. The work is done by test/bench/main.ts, in Node 24.
 */
import { spawn } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const main = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../test/bench/main.ts')
const child = spawn(process.execPath, [main, ...process.argv.slice(2)], { stdio: 'inherit' })
process.on('SIGINT', () => {}) // the child has it from the terminal, and ends what it started
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('close', (code) => process.exit(code ?? 1))
