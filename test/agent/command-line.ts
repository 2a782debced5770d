/** The command line as a process of its own, whose output is looked at while it goes on. */
import { spawn } from 'node:child_process'
import { join, resolve } from 'node:path'
import type { TestContext } from 'node:test'
import { AGENT_SOCKET } from '../../agent/compose.ts'
import { afterwards } from '../audit/harness.ts'
import type { PodHost } from './pod-host.ts'

export interface Printed {
  stdout: string
  readonly ended: Promise<number | null>
  kill(signal: NodeJS.Signals): void
}

/** The command line, as an operator of the tenant would use it. */
export function casemate(t: TestContext, host: PodHost, ...words: readonly string[]): Printed {
  const main = resolve(import.meta.dirname, '../../agent/cli/main.ts')
  const socket = join(host.agent.directory, 'run', AGENT_SOCKET)
  const args = [main, '--socket', socket, '-t', 'acme', ...words]
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] })
  afterwards(t, () => child.kill('SIGKILL'))
  const printed = {
    stdout: '',
    kill: (signal: NodeJS.Signals) => void child.kill(signal),
    ended: new Promise<number | null>((ended) => {
      child.once('close', ended)
    }),
  }
  child.stdout.on('data', (bytes: Buffer) => {
    printed.stdout += bytes.toString('utf8')
  })
  return printed
}
