/**
 * Programs in Go that tests compare ours with: the verifiers under test/peers (seconds) and cosign (5 to
 * 11 minutes). Built once into the cache, found by tests in .tools/peers/<name> and <cache>/bin/cosign.
 * Needs Go; without it, or where modules cannot be had, tests skip.
 */
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { withLock } from './lock.mjs'
import { cache, inRoot, tools } from './paths.mjs'
import { capture, Log } from './run.mjs'

const COSIGN = { module: 'github.com/sigstore/cosign/v3/cmd/cosign', version: 'v3.1.3' }
const ADVICE = 'check the network, then run the same command again'

/** Go must not fetch another version of itself on its own. */
const environment = { CGO_ENABLED: '0', GOTOOLCHAIN: 'local', GOFLAGS: '-mod=readonly -trimpath' }

const peersFolder = inRoot('test/peers')
/** Verifiers belong to a checkout, cosign to the machine. */
const peer = (name) => path.join(tools, 'peers', name)
const cosign = path.join(cache, 'bin/cosign')

/** Folders under test/peers that are Go modules. */
function peerModules() {
  if (!existsSync(peersFolder)) return []
  return readdirSync(peersFolder).filter((name) =>
    existsSync(path.join(peersFolder, name, 'go.mod')),
  )
}

/** A digest of a module's files and of the compiler, so that a changed verifier is built again. */
function keyOf(folder, version) {
  const hash = createHash('sha256').update(version)
  for (const name of readdirSync(folder).sort()) {
    if (/\.go$|^go\.(mod|sum)$/u.test(name)) {
      hash.update(`${name}\0`).update(
        createHash('sha256')
          .update(readFileSync(path.join(folder, name)))
          .digest(),
      )
    }
  }
  return hash.digest('hex').slice(0, 32)
}

/** Makes `place` point at `program`. */
function publish(place, program) {
  mkdirSync(path.dirname(place), { recursive: true })
  rmSync(place, { force: true })
  symlinkSync(program, place)
}

async function buildPeer(name, version, log) {
  const folder = path.join(peersFolder, name)
  const program = path.join(cache, 'go', keyOf(folder, version), name)
  if (!existsSync(program)) {
    await log.run(['go', 'build', '-o', program, '.'], {
      cwd: folder,
      env: environment,
      advice: ADVICE,
    })
  }
  publish(peer(name), program)
}

async function buildCosign(log) {
  const home = path.join(cache, 'go', `cosign-${COSIGN.version}`)
  const program = path.join(home, 'cosign')
  if (!existsSync(program)) {
    process.stderr.write('building cosign, once for this machine: 5 to 11 minutes\n')
    // Its 2 GB of modules and objects are of no use to anybody afterwards.
    const folders = { GOMODCACHE: path.join(home, 'modules'), GOCACHE: path.join(home, 'objects') }
    const env = { ...environment, ...folders, GOFLAGS: '-trimpath', GOBIN: home }
    await log.run(['go', 'install', `${COSIGN.module}@${COSIGN.version}`], { env, advice: ADVICE })
    await log.run(['go', 'clean', '-modcache', '-cache'], { env })
  }
  publish(cosign, program)
}

/** Runs `build` under a lock of its own: nobody who wants a verifier waits for cosign. */
async function attempt(name, build) {
  const wait = () => process.stderr.write(`waiting for another build of ${name}\n`)
  try {
    await withLock(path.join(cache, `go-${name}.lock`), wait, build)
    return []
  } catch (error) {
    return [`${name} could not be built: ${error.message}`]
  }
}

/** Builds what can be built; returns what is missing, one sentence for each. */
export async function goTools() {
  const version = capture(['go', 'version'])
  if (version === null) return ['Go is not installed: independent verifiers and cosign are skipped']
  const log = new Log('go-tools')
  const missing = []
  try {
    for (const name of peerModules()) {
      missing.push(...(await attempt(name, () => buildPeer(name, version, log))))
    }
    if (!existsSync(cosign)) {
      missing.push(...(await attempt('cosign', () => buildCosign(log))))
    }
  } finally {
    await log.close()
  }
  return missing
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const sentence of await goTools()) process.stdout.write(`${sentence}\n`)
}
