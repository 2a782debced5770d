/** Other people's programs for the tests of images: where they are, and how they are run. */
import { type ChildProcess, execFile, execFileSync, spawn } from 'node:child_process'
import { accessSync, constants, mkdirSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import path from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'

const cache = process.env['CASEMATE_CACHE'] ?? '/var/cache/casemate'
const folders = [
  ...(process.env['PATH'] ?? '').split(':'),
  '/usr/sbin',
  '/sbin',
  path.join(cache, 'bin'),
  path.join(cache, 'docker-registry/usr/bin'),
]

/** Full path of a program, or null. */
export function find(program: string): string | null {
  for (const folder of folders) {
    const place = path.join(folder, program)
    try {
      accessSync(place, constants.X_OK)
      return place
    } catch {
      // Not in this folder.
    }
  }
  return null
}

/** Reason to skip what needs these programs, or false: what node:test takes as `skip`. */
export function missing(...programs: readonly string[]): string | false {
  const absent = programs.filter((program) => find(program) === null)
  return absent.length === 0 ? false : `not installed: ${absent.join(', ')}`
}

export interface Ran {
  readonly code: number
  readonly stdout: Buffer
  readonly stderr: string
}

/** Runs a program to its end, whatever its status. */
export function run(
  program: string,
  parameters: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Ran> {
  const place = find(program)
  if (place === null) throw new Error(`${program} is not installed`)
  return new Promise((resolve) => {
    const options = {
      encoding: 'buffer',
      maxBuffer: 1 << 30,
      env: { ...process.env, ...env },
    } as const
    execFile(place, parameters, options, (error, stdout, stderr) => {
      const code = error === null ? 0 : Number(error.code ?? 255)
      resolve({ code: Number.isNaN(code) ? 255 : code, stdout, stderr: stderr.toString('utf8') })
    })
  })
}

/** Runs a program that must succeed. */
export async function must(
  program: string,
  parameters: readonly string[],
  env: Readonly<Record<string, string>> = {},
): Promise<Buffer> {
  const { code, stdout, stderr } = await run(program, parameters, env)
  if (code !== 0) throw new Error(`${program} ${parameters.join(' ')}: status ${code}: ${stderr}`)
  return stdout
}

export function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const address = server.address()
      server.close(() => resolve(typeof address === 'object' ? (address?.port ?? 0) : 0))
    })
  })
}

async function answers(url: string, child: ChildProcess): Promise<boolean> {
  for (let attempt = 0; attempt < 600 && child.exitCode === null; attempt += 1) {
    const ok = await fetch(url).then(
      ({ status }) => status === 200 || status === 401,
      () => false,
    )
    if (ok) return true
    await sleep(50)
  }
  return false
}

export interface Peer {
  /** Host and port. */
  readonly host: string
  stop(): void
}

/** Who may use a registry; without it, everybody. */
export interface Login {
  readonly username: string
  readonly password: string
}

/** A line of htpasswd(5) with bcrypt, which is all that docker-registry takes; by libcrypt. */
function htpasswdLine({ username, password }: Login): string {
  const program = 'print crypt($ARGV[0], q($2b$05$abcdefghijklmnopqrstuu))'
  const hash = execFileSync('perl', ['-e', program, password], { encoding: 'utf8' })
  return `${username}:${hash}\n`
}

/** Debian's docker-registry on a free port of loopback; its files go into `directory`. */
export async function startDockerRegistry(directory: string, login?: Login): Promise<Peer> {
  const program = find('docker-registry')
  if (program === null) throw new Error('docker-registry is not installed')
  const host = `127.0.0.1:${await freePort()}`
  const storage = path.join(directory, 'registry')
  mkdirSync(storage)
  const config = path.join(directory, 'registry.yml')
  const lines = [
    'version: 0.1',
    'log: {level: error, accesslog: {disabled: true}}',
    `storage: {filesystem: {rootdirectory: ${storage}}}`,
    `http: {addr: "${host}"}`,
  ]
  if (login !== undefined) {
    const htpasswd = path.join(directory, 'htpasswd')
    writeFileSync(htpasswd, htpasswdLine(login))
    lines.push(`auth: {htpasswd: {realm: test, path: ${htpasswd}}}`)
  }
  writeFileSync(config, lines.join('\n'))
  const child = spawn(program, ['serve', config], { stdio: 'ignore' })
  const stop = (): void => void child.kill('SIGKILL')
  if (await answers(`http://${host}/v2/`, child)) return { host, stop }
  stop()
  throw new Error('docker-registry did not start')
}
