/**
 * The programs beside the tests: signer and spawn, as real processes of root's, ended by their pid;
 * and what the kernel says of a process.
 */
import { type ChildProcess, spawn as start } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import path from 'node:path'
import type { Readable } from 'node:stream'

const root = path.resolve(import.meta.dirname, '../..')
const WORDS_KEPT = 20

/** A program that has said it is ready. */
export interface Program {
  readonly pid: number
  /** The line that said so. */
  readonly ready: string
  /** The last lines it wrote, for failures. */
  words(): string
  /** TERM, and resolves when it is gone. */
  end(): Promise<void>
  /** Resolves when it has ended by itself. */
  gone(): Promise<void>
}

function lines(stream: Readable | null, take: (line: string) => void): void {
  let held = ''
  stream?.setEncoding('utf8')
  stream?.on('data', (chunk: string) => {
    const found = (held + chunk).split('\n')
    held = found.pop() ?? ''
    for (const line of found) take(line)
  })
}

const gone = (child: ChildProcess): Promise<void> =>
  new Promise((resolve) => {
    if (child.exitCode !== null || child.signalCode !== null) resolve()
    else child.once('exit', () => resolve())
  })

/** Starts `command` and waits for the line that begins with `ready`. @throws with its last words */
export async function startProgram(command: readonly string[], ready: string): Promise<Program> {
  // A test run that ends without warning must leave no spawn and no VM behind.
  const args = ['--pdeathsig=TERM', '--', ...command]
  const child = start('/usr/bin/setpriv', args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {},
    cwd: '/',
  })
  const kept: string[] = []
  const words = (): string => kept.join('\n')
  const line = await new Promise<string>((resolve, reject) => {
    const take = (said: string): void => {
      kept.push(said)
      if (kept.length > WORDS_KEPT) kept.shift()
      if (said.startsWith(ready)) resolve(said)
    }
    lines(child.stdout, take)
    lines(child.stderr, take)
    child.once('error', reject)
    child.once('exit', () =>
      reject(new Error(`${command[0] ?? ''} ended before it was ready:\n${words()}`)),
    )
  })
  return {
    pid: child.pid ?? 0,
    ready: line,
    words,
    end: async () => {
      child.kill('SIGTERM')
      await gone(child)
    },
    gone: () => gone(child),
  }
}

/** casemate-signer with its key in `directory`; `ready` ends with the vkey. */
export function startSigner(directory: string, origin: string): Promise<Program> {
  const options = {
    socket: path.join(directory, 'signer.sock'),
    keys: path.join(directory, 'keys'),
    vkey: path.join(directory, 'log.vkey'),
    origin,
    uid: String(process.getuid?.() ?? 0),
    peers: path.join(root, 'native/addon.ts'),
  }
  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  return startProgram(
    [process.execPath, path.join(root, 'audit/signer/main.ts'), ...flags],
    'ready ',
  )
}

/** casemate-spawn with the configuration at `config`. @param by a command that executes it */
export const startSpawn = (
  program: string,
  config: string,
  by: readonly string[] = [],
): Promise<Program> => startProgram([...by, program, '--config', config], 'casemate-spawn: ready')

/** Members of a process's or thread's status file by name. @param place `/proc/PID`, `/proc/PID/task/TID` */
export const statusOf = (place: string): ReadonlyMap<string, string> =>
  new Map(
    readFileSync(`${place}/status`, 'latin1')
      .split('\n')
      .map((line) => {
        const [name = '', ...rest] = line.split(':')
        return [name, rest.join(':').trim()] as const
      }),
  )

/** Names of the threads that run the program, by id: KVM's own workers may be listed with them. */
export const threadsOf = (pid: number): ReadonlyMap<string, string> =>
  new Map(
    readdirSync(`/proc/${pid}/task`)
      .map((tid) => [tid, statusOf(`/proc/${pid}/task/${tid}`).get('Name') ?? ''] as const)
      .filter(([, name]) => !name.startsWith('kvm-')),
  )

/** Seccomp mode, number of filters and no_new_privs of each thread, by its name. */
export const filtersOn = (pid: number): Readonly<Record<string, readonly unknown[]>> =>
  Object.fromEntries(
    [...threadsOf(pid)].map(([tid, name]) => {
      const status = statusOf(`/proc/${pid}/task/${tid}`)
      return [name, ['Seccomp', 'Seccomp_filters', 'NoNewPrivs'].map((of) => status.get(of))]
    }),
  )
