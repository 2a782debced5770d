/** Debian packages, installed without starting a service. */
import {
  appendFileSync,
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { cache } from './paths.mjs'
import { capture, SetupError } from './run.mjs'

/** What running and testing Casemate takes, whatever is in the cache. */
export const PACKAGES = [
  'busybox-static', // the demo's image
  'cryptsetup-bin', // veritysetup, which our Merkle trees are compared with
  'e2fsprogs', // mke2fs: the scratch file system
  'iproute2', // the router's gateways; looks at interfaces in tests
  'erofs-utils', // mkfs.erofs for the init disk; fsck.erofs and dump.erofs check our writer
  'nftables', // rules between pods, the host and the internet
  'libseccomp2', // compiles seccomp profiles
  'openssl',
  'qemu-system-x86', // boots the kernel for hardware KVM where there is none
  'runc', // runs containers
  'skopeo', // pushes images in demo and tests
  'strace', // counts system calls of the VMM in tests
  'umoci', // our merged file systems are compared with its
  'util-linux',
]
/** What building the guest kernel takes; not installed where the cache has the kernel. */
export const KERNEL_PACKAGES = [
  'linux-source-6.1',
  'bc',
  'bison',
  'flex',
  'libelf-dev',
  'libssl-dev',
  'make',
  'patch',
  'xz-utils',
]

const REGISTRY = 'docker-registry'
const ADVICE =
  'check the network and /etc/apt/sources.list, then run `apt-get update` and the same command again'
const environment = { DEBIAN_FRONTEND: 'noninteractive' }

/** The installed version of a package, or null. */
export function installedVersion(name) {
  const line = capture(['dpkg-query', '-W', '-f', '${db:Status-Abbrev} ${Version}', name])
  return line?.startsWith('ii ') === true ? line.slice(3).trim() : null
}

/** The version apt would install, or null. */
function candidateVersion(name) {
  const version = /^ {2}Candidate: (\S+)$/mu.exec(capture(['apt-cache', 'policy', name]) ?? '')?.[1]
  return version === undefined || version === '(none)' ? null : version
}

export const knownVersion = (name) => installedVersion(name) ?? candidateVersion(name)

function installed(names) {
  const listed =
    capture([
      'sh',
      '-c',
      `dpkg-query -W -f '\${db:Status-Abbrev} \${Package}\\n' ${names.join(' ')} 2>/dev/null; true`,
    ]) ?? ''
  return new Set(
    listed.split('\n').flatMap((line) => (line.startsWith('ii ') ? [line.slice(3).trim()] : [])),
  )
}

/** What set-up installed, a name a line, so that the README's undo removes that and no more. */
const INSTALLED_LIST = path.join(cache, 'debian-packages.txt')

const POLICY = '/usr/sbin/policy-rc.d'
const POLICY_TEXT =
  '#!/bin/sh\n# Written by Casemate set-up while it installs packages: no service starts. Removed when it is done.\nexit 101\n'

/** While `work` runs, invoke-rc.d and deb-systemd-invoke start nothing. A policy of the host's own stays as it is. */
async function withoutServices(work) {
  const ours = !existsSync(POLICY) || readFileSync(POLICY, 'utf8') === POLICY_TEXT
  const undo = () => rmSync(POLICY, { force: true })
  if (!ours) return await work()
  writeFileSync(POLICY, POLICY_TEXT)
  chmodSync(POLICY, 0o755)
  process.once('exit', undo)
  try {
    return await work()
  } finally {
    undo()
    process.removeListener('exit', undo)
  }
}

/** Installs those of `names` that are not there. */
export async function installPackages(names, log, working) {
  const there = installed(names)
  const missing = names.filter((name) => !there.has(name))
  if (missing.length === 0) return
  working(`installing ${missing.join(' ')}`)
  const update = () => log.run(['apt-get', 'update', '-q'], { env: environment, advice: ADVICE })
  const install = () =>
    log.run(['apt-get', 'install', '-q', '-y', '--no-install-recommends', ...missing], {
      env: environment,
      advice: ADVICE,
    })
  if (missing.some((name) => candidateVersion(name) === null)) await update()
  await withoutServices(async () => {
    try {
      await install()
    } catch {
      await update() // lists that are too old name versions that are gone
      await install()
    }
  })
  mkdirSync(cache, { recursive: true })
  appendFileSync(INSTALLED_LIST, `${missing.join('\n')}\n`)
}

/**
 * Debian's docker-registry, taken out of its package without installing it: the package starts a
 * registry on port 5000 of every address. Returns the path of the program.
 */
export async function dockerRegistry(log, working) {
  const system = '/usr/bin/docker-registry'
  if (existsSync(system)) return system
  const home = path.join(cache, REGISTRY)
  const program = path.join(home, 'usr/bin/docker-registry')
  if (existsSync(program)) return program
  working('taking docker-registry out of its package')
  mkdirSync(cache, { recursive: true })
  const folder = mkdtempSync(path.join(cache, 'registry-'))
  try {
    const download = ['apt-get', 'download', '-q', '-o', 'APT::Sandbox::User=root', REGISTRY]
    if (candidateVersion(REGISTRY) === null)
      await log.run(['apt-get', 'update', '-q'], { env: environment, advice: ADVICE })
    await log.run(download, { cwd: folder, advice: ADVICE })
    const archive = readdirSync(folder).find((name) => name.endsWith('.deb'))
    if (archive === undefined)
      throw new SetupError(`apt-get downloaded no package of ${REGISTRY}`, ADVICE)
    await log.run(['dpkg', '-x', archive, 'files'], { cwd: folder })
    rmSync(home, { recursive: true, force: true })
    renameSync(path.join(folder, 'files'), home)
    return program
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}
