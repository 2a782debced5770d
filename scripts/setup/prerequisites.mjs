/** What must be there before anything is changed. All that is missing is said at once. */
import { existsSync, readFileSync, statfsSync } from 'node:fs'
import path from 'node:path'
import { kernelInCache } from './kernel.mjs'
import { cache, inRoot, tools } from './paths.mjs'
import { capture, SetupError } from './run.mjs'

const GIB = 1024 ** 3
const NODE_MAJOR_MIN = 18
/** Free space in bytes that a first set-up needs at most, measured and rounded up. */
const SPACE_KERNEL = 3 * GIB
const SPACE_CHECKOUT = 4 * GIB
const SPACE_REPEAT = 0.5 * GIB

const has = (program) => capture(['sh', '-c', `command -v ${program}`]) !== null
const hasAll = (...programs) => programs.every(has)

/** Each: is it there, and what is missing and how to get it. */
function machineChecks() {
  const release = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : ''
  const bookworm = /^VERSION_CODENAME=bookworm$/mu.test(release)
  return [
    [
      process.platform === 'linux' && process.arch === 'x64',
      `Linux on x86-64 (this is ${process.platform} on ${process.arch})`,
    ],
    [
      process.getuid?.() === 0,
      'root, to install packages and to run virtual machines under users of their own (sudo npm ...)',
    ],
    [
      bookworm && hasAll('apt-get', 'dpkg-query'),
      'Debian 12 (bookworm): its packages are what Casemate is built from',
    ],
  ]
}

function programChecks() {
  const toolchain = readFileSync(inRoot('native/rust-toolchain.toml'), 'utf8')
  const pinned = /channel = "([^"]+)"/u.exec(toolchain)?.[1]
  const rustc = capture(['rustc', '--version'], { cwd: inRoot('native') })
  return [
    [
      Number(process.versions.node.split('.')[0]) >= NODE_MAJOR_MIN,
      `Node ${NODE_MAJOR_MIN} or newer to start set-up with (apt-get install nodejs)`,
    ],
    [hasAll('npm'), 'npm (apt-get install npm)'],
    [hasAll('gcc', 'g++'), 'a C and C++ compiler (apt-get install build-essential)'],
    [
      hasAll('cargo') && rustc?.includes(` ${pinned} `),
      `Rust ${pinned} with cargo, clippy and rustfmt (https://rustup.rs; found: ${rustc ?? 'none'})`,
    ],
    [hasAll('flock', 'tar'), 'flock and tar (apt-get install util-linux tar)'],
  ]
}

/** Bytes free on the file system that holds `folder` or would hold it. */
function freeAt(folder) {
  const there = existsSync(folder)
  const up = path.dirname(folder)
  if (!there && up !== folder) return freeAt(up)
  const { bavail, bsize } = statfsSync(folder)
  return { bytes: bavail * bsize, device: capture(['stat', '-c', '%d', folder]) }
}

/** The space wanted at each place, added up where two places share a file system. */
function spaceMissing() {
  const wants = [
    [cache, kernelInCache() ? SPACE_REPEAT : SPACE_KERNEL],
    [
      tools,
      existsSync(path.join(tools, 'artifacts/artifacts.json')) ? SPACE_REPEAT : SPACE_CHECKOUT,
    ],
  ]
  const byDevice = new Map()
  for (const [folder, bytes] of wants) {
    const free = freeAt(folder)
    const entry = byDevice.get(free.device) ?? { folders: [], wanted: 0, free: free.bytes }
    entry.folders.push(folder)
    entry.wanted += bytes
    byDevice.set(free.device, entry)
  }
  return [...byDevice.values()]
    .filter((entry) => entry.free < entry.wanted)
    .map(
      (entry) =>
        `${(entry.wanted / GIB).toFixed(1)} GiB free for ${entry.folders.join(' and ')} (${(entry.free / GIB).toFixed(1)} GiB are; CASEMATE_CACHE moves the cache)`,
    )
}

/** Throws one SetupError that lists everything missing. */
export function checkPrerequisites() {
  const missing = [...machineChecks(), ...programChecks()].flatMap(([there, what]) =>
    there ? [] : [what],
  )
  const all = [...missing, ...spaceMissing()]
  if (all.length === 0) return
  throw new SetupError(
    `missing:\n${all.map((what) => `    - ${what}`).join('\n')}`,
    'provide what is listed and run the same command again; nothing was changed so far',
  )
}

/** Things without which set-up works, but not everything after it. */
export function remarks() {
  return existsSync('/dev/kvm')
    ? []
    : [
        'no /dev/kvm: tests of virtual machines are skipped and `npm run demo` will end in ISOLATION_UNAVAILABLE',
      ]
}
