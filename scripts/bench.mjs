/**
 * Measurements: npm run bench [-- --json] [-- --only GROUP]...
 * docs/benchmarks.md says what each figure is. The work is done by test/bench/main.ts, in Node 24;
 * with --peers first, by test/bench/peers/main.ts (npm run bench:peers).
 */
import { spawn } from 'node:child_process'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const folder = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../test/bench')
const given = process.argv.slice(2)
const [main, args] = given[0] === '--peers' ? ['peers/main.ts', given.slice(1)] : ['main.ts', given]
const child = spawn(process.execPath, [path.join(folder, main), ...args], { stdio: 'inherit' })
process.on('SIGINT', () => {}) // the child has it from the terminal, and ends what it started
for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
child.on('close', (code) => process.exit(code ?? 1))
