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

/** Names of the packages and of all that they depend on. */
function closure(packages: readonly string[], directory: string): readonly string[] {
  const status = path.join(directory, 'status')
  writeFileSync(status, ASSUMED.map(statusOf).join(''))
  const options = ['--option', `Dir::State::status=${status}`, '--no-install-recommends']
  const said = output('apt-get', [...options, '--simulate', 'install', ...packages])
  return [...said.matchAll(/^Inst (\S+)/gmu)].map(([, name = '']) => name)
}

function download(packages: readonly string[], directory: string): void {
  // The directory is root's alone, and so is the process that writes there.
  const options = ['--quiet', '--option', 'APT::Sandbox::User=root']
  output('apt-get', [...options, 'download', ...closure(packages, directory)], directory)
}

/** A tar archive; kept, so that a second run needs no network. @throws with what apt said */
export function debianLayer(packages: readonly string[]): Buffer {
  const name = createHash('sha256')
    .update(JSON.stringify([packages, ASSUMED]))
    .digest('hex')
  const kept = path.join(cache, `${name}.tar`)
  if (existsSync(kept)) return readFileSync(kept)
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-debian-'))
  try {
    try {
      download(packages, directory)
    } catch {
      // Lists that are missing or older than what the archive holds.
      output('apt-get', ['--quiet', 'update'])
      download(packages, directory)
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
