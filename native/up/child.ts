/** One process that `casemate up` starts: its output goes to a log file, its first word is `ready`. */
import { type ChildProcess, type ChildProcessByStdio, spawn } from 'node:child_process'
import type { Readable } from 'node:stream'
import type { Account } from './accounts.ts'
import { LogFile } from './log-file.ts'

const READY_MS = 60_000
/** The agent waits for launches (10 s) and stops pods (15 s) before it ends. */
const END_MS = 45_000
const LINE_CHARACTERS_MAX = 8192
/** Of a process that did not start: what is shown of its words. */
const LAST_LINES = 5

export interface ChildPlan {
  readonly name: 'signer' | 'spawn' | 'agent'
  readonly command: readonly string[]
  /** The line, or its beginning, that says it serves. */
  readonly ready: string
  readonly logFile: string
  /** Called with every line that it says. */
  readonly heard?: (line: string) => void
}

export interface Child {
  readonly name: ChildPlan['name']
  readonly pid: number
  /** The rest of the line that said it serves. */
  readonly said: string
  /** Resolves when it has ended, with how. */
  readonly ended: Promise<string>
  /** The signal, TERM if none is named, and KILL after END_MS. */
  end(signal?: NodeJS.Signals): Promise<void>
}

/** `program` as a user with no privilege that could be had back, which ends when its parent does. */
export const asUser = (
  account: Account,
  groups: readonly number[],
  command: readonly string[],
): readonly string[] => [
  'setpriv',
  `--reuid=${account.uid}`,
  `--regid=${account.gid}`,
  ...(groups.length === 0 ? ['--clear-groups'] : [`--groups=${groups.join(',')}`]),
  '--no-new-privs',
  '--bounding-set=-all',
  '--inh-caps=-all',
  '--pdeathsig=TERM',
  '--',
  ...command,
]

/** Nothing of the operator's environment reaches the processes. */
const ENVIRONMENT = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin', LANG: 'C.UTF-8' }

function lines(stream: Readable, take: (line: string) => void): void {
  let held = ''
  stream.setEncoding('utf8')
  stream.on('data', (chunk: string) => {
    const found = (held + chunk).split('\n')
    held = (found.pop() ?? '').slice(-LINE_CHARACTERS_MAX)
    for (const line of found) take(line)
  })
}

const howOf = (child: ChildProcess): string =>
  child.signalCode === null ? `exit code ${String(child.exitCode)}` : `signal ${child.signalCode}`

/** The rest of the line that says it serves. */
async function ready(
  plan: ChildPlan,
  child: ChildProcessByStdio<null, Readable, Readable>,
  ended: Promise<string>,
  log: LogFile,
): Promise<string> {
  const last: string[] = []
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise<string>((resolve, reject) => {
      const fail = (how: string): void => {
        const words = last.length === 0 ? '' : `:\n  ${last.join('\n  ')}`
        reject(new Error(`casemate-${plan.name} did not start (${how}); ${plan.logFile}${words}`))
      }
      timer = setTimeout(() => {
        child.kill('SIGKILL')
        fail(`not ready after ${READY_MS / 1000} s`)
      }, READY_MS)
      const take = (line: string): void => {
        log.write(line)
        plan.heard?.(line)
        last.push(line)
        if (last.length > LAST_LINES) last.shift()
        if (line.startsWith(plan.ready)) resolve(line.slice(plan.ready.length).trim())
      }
      lines(child.stdout, take)
      lines(child.stderr, take)
      child.once('error', (error) => fail(error.message))
      void ended.then(fail)
    })
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Starts it and resolves when it serves; aborted before that, it ends.
 * @throws with its last words when it does not serve
 */
export async function startChild(plan: ChildPlan, signal?: AbortSignal): Promise<Child> {
  const [program = '', ...args] = plan.command
  const log = new LogFile(plan.logFile)
  const child = spawn(program, args, {
    stdio: ['ignore', 'pipe', 'pipe'],
    env: ENVIRONMENT,
    cwd: '/',
    // A session of its own: Ctrl-C in a terminal reaches `casemate up` alone, which ends them in order.
    detached: true,
  })
  const ended = new Promise<string>((resolve) => {
    child.once('close', () => {
      log.close()
      resolve(howOf(child))
    })
  })
  const stop = (): boolean => child.kill('SIGTERM')
  signal?.addEventListener('abort', stop)
  if (signal?.aborted === true) stop()
  const said = await ready(plan, child, ended, log).finally(() => {
    signal?.removeEventListener('abort', stop)
  })
  return {
    name: plan.name,
    pid: child.pid ?? 0,
    said,
    ended,
    end: async (first = 'SIGTERM') => {
      child.kill(first)
      const timer = setTimeout(() => child.kill('SIGKILL'), END_MS)
      await ended
      clearTimeout(timer)
    },
  }
}
