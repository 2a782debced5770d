/** `casemate up` as an operator starts it, and what can be seen of its processes from outside. */
import { type ChildProcess, spawn } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'
import { afterwards } from '../audit/harness.ts'

const root = path.resolve(import.meta.dirname, '../..')
const CLI = 'agent/cli/main.ts'
const programs = {
  signer: 'audit/signer/main.ts',
  spawn: 'casemate-spawn',
  agent: 'agent/main.ts',
} as const

export interface Ran {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface UpHost {
  readonly state: string
  readonly run: string
  readonly socket: string
  /** Resolves when up has said so, from now on or before. */
  heard(what: RegExp): Promise<void>
  pidOf(name: keyof typeof programs): number
  /** Runs a command where up sees the code, as any user; CASEMATE and NODE stand for the programs. */
  as(uid: number, ...command: readonly string[]): Promise<Ran>
  /** TERM to up; resolves when it is gone. */
  end(): Promise<number | null>
  /** When up has ended. */
  readonly ended: Promise<number | null>
  said(): string
}

/** A place for the state that other users can go through. Gone after the test. */
export function stateDirectory(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-up-'))
  chmodSync(directory, 0o755)
  afterwards(t, () => rmSync(directory, { recursive: true, force: true }))
  return directory
}

export function runProgram(command: readonly string[]): Promise<Ran> {
  const [program = '', ...args] = command
  return new Promise((resolve) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let stdout = ''
    let stderr = ''
    child.stdout.on('data', (chunk: Buffer) => (stdout += chunk.toString()))
    child.stderr.on('data', (chunk: Buffer) => (stderr += chunk.toString()))
    child.once('close', (code) => resolve({ code, stdout, stderr }))
  })
}

/** Pids of the processes that `parent` started. */
const childrenOf = (parent: number): readonly number[] =>
  readFileSync(`/proc/${parent}/task/${parent}/children`, 'utf8')
    .split(' ')
    .filter((pid) => pid !== '')
    .map(Number)

function watch(child: ChildProcess): Pick<UpHost, 'heard' | 'said'> {
  let said = ''
  const listeners = new Set<() => void>()
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString()
    for (const look of listeners) look()
  })
  child.once('exit', () => {
    for (const look of listeners) look()
  })
  const heard: UpHost['heard'] = (what) =>
    new Promise((resolve, reject) => {
      const look = (): void => {
        if (what.test(said)) resolve()
        else if (child.exitCode !== null) reject(new Error(`up ended:\n${said}`))
      }
      listeners.add(look)
      look()
    })
  return { heard, said: () => said }
}

/** Starts it; it ends with the test. Does not wait. */
export function startUp(t: TestContext, state: string, ...more: readonly string[]): UpHost {
  const run = path.join(state, 'run')
  const args = [path.join(root, CLI), 'up', '--state-dir', state, '--run-dir', run, ...more]
  const child = spawn('setpriv', ['--pdeathsig=TERM', '--', process.execPath, ...args], {
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  const pid = child.pid ?? 0
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  const end = (): Promise<number | null> => {
    if (child.exitCode === null) child.kill('SIGTERM')
    return ended
  }
  afterwards(t, end)
  const code = path.join(run, 'code')
  const inside = path.relative(root, process.execPath)
  const node = inside.startsWith('..') ? process.execPath : path.join(code, inside)
  const socket = path.join(run, 'agent/agent.sock')
  const words = { NODE: [node], CASEMATE: [node, path.join(code, CLI), '--socket', socket] }
  return {
    ...watch(child),
    state,
    run,
    socket,
    pidOf: (name) => {
      const of = (parent: number, word: string): number => {
        const found = childrenOf(parent).find((one) =>
          readFileSync(`/proc/${one}/cmdline`, 'utf8').includes(word),
        )
        if (found === undefined) throw new Error(`no ${word} below ${parent}`)
        return found
      }
      // What up starts keeps a spawn running, whose own arguments begin with its configuration.
      const started = of(pid, programs[name])
      return name === 'spawn' ? of(started, 'casemate-spawn\0--config') : started
    },
    as: (uid, ...command) => {
      const user = [`--reuid=${uid}`, `--regid=${uid}`, '--clear-groups']
      const inner = command.flatMap((word) =>
        word === 'NODE' || word === 'CASEMATE' ? words[word] : [word],
      )
      return runProgram([
        'nsenter',
        `--mount=/proc/${pid}/ns/mnt`,
        'setpriv',
        ...user,
        '--',
        ...inner,
      ])
    },
    end,
    ended,
  }
}
