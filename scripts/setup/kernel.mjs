/** The guest kernel: two builds of one tree, made once per content and kept in the cache. */
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import path from 'node:path'
import { installedVersion, installPackages, KERNEL_PACKAGES, knownVersion } from './debian.mjs'
import { withLock } from './lock.mjs'
import { cache, inRoot } from './paths.mjs'
import { SetupError } from './run.mjs'

const SOURCE_PACKAGE = 'linux-source-6.1'
const SOURCE = `/usr/src/${SOURCE_PACKAGE}.tar.xz`
const config = inRoot('native/kernel/config')
const patchFolder = inRoot('native/kernel/patches')
const patches = () =>
  readdirSync(patchFolder)
    .filter((name) => name.endsWith('.patch'))
    .sort()
const processors = () => (availableParallelism ?? (() => cpus().length))()

/** Raised when this file changes how a kernel is made, so that older ones are not taken for it. */
const RECIPE = 1
/** So that the same sources and compiler give the same bytes on every machine. */
const REPRODUCIBLE = {
  KBUILD_BUILD_TIMESTAMP: '1970-01-01 00:00:00 UTC',
  KBUILD_BUILD_USER: 'casemate',
  KBUILD_BUILD_HOST: 'casemate',
  KBUILD_BUILD_VERSION: '1',
}
/** File in the cache -> what `make` is told to append to the release. */
const KINDS = { vmlinux: '', 'vmlinux-softkvm': '-softkvm' }

/** What the cache files a kernel under: a digest of configuration, patches, recipe and source version. */
function keyFor(version) {
  const hash = createHash('sha256').update(JSON.stringify([RECIPE, version]))
  for (const file of [config, ...patches().map((name) => path.join(patchFolder, name))]) {
    hash.update(createHash('sha256').update(readFileSync(file)).digest())
  }
  return hash.digest('hex').slice(0, 32)
}

const folderFor = (version) => path.join(cache, 'kernel', keyFor(version))
const complete = (folder) => Object.keys(KINDS).every((name) => existsSync(path.join(folder, name)))

export function kernelInCache() {
  const version = installedVersion(SOURCE_PACKAGE)
  return version !== null && complete(folderFor(version))
}

/** Refuses a configuration of which the kernel's own tools took over less than all. */
function checkConfig(tree) {
  const wanted = readFileSync(config, 'utf8')
    .split('\n')
    .filter((line) => /^(?:CONFIG_|# CONFIG_)/u.test(line))
  const made = new Set(readFileSync(path.join(tree, '.config'), 'utf8').split('\n'))
  // An option that no longer exists, or whose conditions are not met, is off: then its line is gone.
  const known = (line) =>
    made.has(line) ||
    (line.startsWith('# ') &&
      ![...made].some((other) => other.startsWith(`${line.split(' ')[1]}=`)))
  const lost = wanted.filter((line) => !known(line))
  if (lost.length > 0) {
    throw new SetupError(
      `the kernel's configuration did not take over: ${lost.join(', ')}`,
      `mend native/kernel/config for ${SOURCE_PACKAGE}`,
    )
  }
}

async function buildIn(folder, log, working) {
  const tree = path.join(folder, SOURCE_PACKAGE)
  const out = path.join(folder, 'out')
  mkdirSync(out)
  working('unpacking the source')
  await log.run(['tar', '-xf', SOURCE, '-C', folder])
  copyFileSync(config, path.join(tree, '.config'))
  const make = (...words) =>
    log.run(['make', '-C', tree, `-j${processors()}`, ...words], { env: REPRODUCIBLE })
  await make('olddefconfig')
  checkConfig(tree)
  for (const [name, suffix] of Object.entries(KINDS)) {
    if (suffix !== '') {
      for (const patch of patches()) {
        await log.run(['patch', '-d', tree, '-p1', '--fuzz=0', '-i', path.join(patchFolder, patch)])
      }
    }
    working(`building ${name}`)
    await make(`LOCALVERSION=${suffix}`, 'vmlinux')
    await log.run(['strip', '-s', '-o', path.join(out, name), path.join(tree, 'vmlinux')])
  }
  return out
}

/** The folder of what would be built now, or null while apt does not know the source package. */
function targetFolder() {
  const version = knownVersion(SOURCE_PACKAGE)
  return version === null ? null : folderFor(version)
}

/** Builds what the cache lacks; returns the folder with vmlinux and vmlinux-softkvm. */
export async function guestKernel(log, working) {
  const early = targetFolder()
  if (early !== null && complete(early)) return early
  await installPackages(KERNEL_PACKAGES, log, working)
  const wait = () => working('waiting for another set-up that builds the kernel')
  return await withLock(path.join(cache, 'kernel.lock'), wait, async () => {
    const target = targetFolder()
    if (complete(target)) return target
    mkdirSync(path.dirname(target), { recursive: true })
    const work = path.join(cache, 'kernel-build')
    try {
      rmSync(work, { recursive: true, force: true }) // of a build that was ended; the lock is ours
      mkdirSync(work)
      const out = await buildIn(work, log, working)
      const version = knownVersion(SOURCE_PACKAGE)
      writeFileSync(path.join(out, 'source.txt'), `${SOURCE_PACKAGE} ${version}\n`)
      rmSync(target, { recursive: true, force: true })
      renameSync(out, target)
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
    return target
  })
}
