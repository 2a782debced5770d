/**
 * One fuzz target for as long as you like: npm run fuzz -- TARGET MINUTES
 * What it finds is in native/fuzz/artifacts, what it has learnt in native/fuzz/target/learnt.
 */
import { buildFuzzTargets, fuzz, fuzzTargets } from './test/rust-tests.mjs'

const USAGE_ERROR = 2

async function main([target, minutes, ...rest]) {
  const targets = fuzzTargets()
  if (!targets.includes(target) || !(Number(minutes) > 0) || rest.length > 0) {
    process.stderr.write(`npm run fuzz -- TARGET MINUTES; targets: ${targets.join(', ')}\n`)
    return USAGE_ERROR
  }
  const { program, problem } = await buildFuzzTargets()
  if (problem !== undefined) {
    process.stderr.write(`${problem} failed\n`)
    return 1
  }
  const { ok } = await fuzz(program, target, Math.ceil(Number(minutes) * 60), false)
  return ok ? 0 : 1
}

process.exitCode = await main(process.argv.slice(2))
