/** Debian packages, and what they need to run, as one layer of an image. Nothing of them runs here. */
import { execFileSync } from 'node:child_process'
import { createHash, randomUUID } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'

const cache = path.join(process.env['CASEMATE_CACHE'] ?? '/var/cache/casemate', 'layers-of-tests')

/** Wanted only while packages are installed, which nobody does in an image that is made by unpacking. */
const ASSUMED = [
  'adduser',
  'debconf',
  'dpkg',
  'init-system-helpers',
  'iproute2',
  'lsb-base',
  'passwd',
  'sysvinit-utils',
  'tar',
  'ucf',
  'usrmerge',
]

/** A line of dpkg's status file for a package that is thought to be there, in any version one may want. */
const statusOf = (name: string): string =>
  `Package: ${name}\nStatus: install ok installed\nVersion: 99\nArchitecture: amd64\nMulti-Arch: foreign\n\n`

const output = (program: string, args: readonly string[], cwd?: string): string =>
  execFileSync(program, args, { cwd, encoding: 'utf8', maxBuffer: 1 << 26 })

interface Wanted {
  readonly packages: readonly string[]
  /** What they depend on and can do without here. */
  readonly assumed: readonly string[]
}

/** Names of the packages and of all that they depend on. */
function closure(wanted: Wanted, directory: string): readonly string[] {
  const status = path.join(directory, 'status')
  writeFileSync(status, wanted.assumed.map(statusOf).join(''))
  const options = ['--option', `Dir::State::status=${status}`, '--no-install-recommends']
  const said = output('apt-get', [...options, '--simulate', 'install', ...wanted.packages])
  return [...said.matchAll(/^Inst (\S+)/gmu)].map(([, name = '']) => name)
}

function download(wanted: Wanted, directory: string): void {
  // The directory is root's alone, and so is the process that writes there.
  const options = ['--quiet', '--option', 'APT::Sandbox::User=root']
  output('apt-get', [...options, 'download', ...closure(wanted, directory)], directory)
}

/**
 * A tar archive; kept, so that a second run needs no network. @throws with what apt said
 * @param without dependencies that are not used
 */
export function debianLayer(packages: readonly string[], without: readonly string[] = []): Buffer {
  const wanted: Wanted = { packages, assumed: [...ASSUMED, ...without] }
  const name = createHash('sha256')
    .update(JSON.stringify([packages, wanted.assumed]))
    .digest('hex')
  const kept = path.join(cache, `${name}.tar`)
  if (existsSync(kept)) return readFileSync(kept)
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-debian-'))
  try {
    try {
      download(wanted, directory)
    } catch {
      // Lists that are missing or older than what the archive holds.
      output('apt-get', ['--quiet', 'update'])
      download(wanted, directory)
    }
    const root = path.join(directory, 'root')
    for (const file of readdirSync(directory).filter((found) => found.endsWith('.deb'))) {
      output('dpkg-deb', ['--extract', path.join(directory, file), root])
    }
    const fixed = ['--sort=name', '--owner=0', '--group=0', '--numeric-owner', '--mtime=@0']
    mkdirSync(cache, { recursive: true })
    const fresh = path.join(cache, randomUUID())
    output('tar', ['--create', `--file=${fresh}`, ...fixed, `--directory=${root}`, '.'])
    renameSync(fresh, kept)
    return readFileSync(kept)
  } finally {
    rmSync(directory, { recursive: true })
  }
}
