/**
 * Compiles the N-API addon with one g++ call. Plain .mjs, so that it starts under any Node.
 *
 * Usage: node native/addon/build.mjs   (idempotent: does nothing when the output is of these sources)
 * Output: native/addon/build/casemate.node and, beside it, the digest of what it was built from.
 */
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'

const here = path.dirname(fileURLToPath(import.meta.url))
const modules = path.resolve(here, '../../node_modules')
export const output = path.join(here, 'build/casemate.node')

const flags = [
  '-std=c++20',
  '-O2',
  '-fPIC',
  '-shared',
  '-fvisibility=hidden',
  '-fstack-protector-strong',
  '-Wall',
  '-Wextra',
  '-Werror',
  '-D_FORTIFY_SOURCE=2',
  '-DNAPI_CPP_EXCEPTIONS',
  '-DNAPI_VERSION=9',
  '-Wl,-z,relro,-z,now',
]

/** Builds when something changed; returns true when it compiled. Throws with the compiler's words. */
export function build() {
  const source = path.join(here, 'addon.cc')
  const versions = ['node-addon-api', 'node-api-headers'].map(
    (name) => JSON.parse(readFileSync(path.join(modules, name, 'package.json'), 'utf8')).version,
  )
  const digest = createHash('sha256')
    .update(readFileSync(source))
    .update(JSON.stringify([flags, versions, process.arch]))
    .digest('hex')
  const stamp = `${output}.sha256`
  const upToDate = existsSync(output) === true && existsSync(stamp) === true
  if (upToDate && readFileSync(stamp, 'utf8') === digest) return false
  mkdirSync(path.dirname(output), { recursive: true })
  const fresh = `${output}.new`
  const includes = ['node-api-headers/include', 'node-addon-api'].flatMap((name) => [
    '-isystem',
    path.join(modules, name),
  ])
  const made = spawnSync('g++', [...flags, ...includes, source, '-o', fresh], { encoding: 'utf8' })
  if (made.status !== 0) {
    const why = made.error === undefined ? made.stderr : made.error.message
    throw new Error(`g++ could not compile ${source}:\n${why}`)
  }
  renameSync(fresh, output) // a rename, so that a running process keeps the file it has loaded
  writeFileSync(stamp, digest)
  return true
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.stdout.write(build() ? `built ${output}\n` : `${output} is up to date\n`)
}
