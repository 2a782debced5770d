/**
 * `casemate attach`: what a running pod writes from now on, its signals, and its end; with -i also what it reads. Of what
 * is typed nothing goes there: keys are looked at for those that detach, and for ctrl-c and ctrl-\.
 */
import type { Command } from 'commander'
import type { Client } from './client.ts'
import { type GlobalOptions, globalsOf, podPath, withClient } from './context.ts'
import { DETACH_KEYS, DetachKeys } from './detach-keys.ts'
import { endOf } from './ended.ts'
import { EXIT } from './exit-codes.ts'
import { passInput, refuseTerminal } from './input.ts'
import { printLogs } from './logs.ts'
import { field, say } from './output.ts'

interface AttachOptions extends GlobalOptions {
  readonly interactive?: boolean
  readonly sigProxy: boolean
  readonly detachKeys: DetachKeys
}

/** Those that people and their programs send; the others are about this process itself. */
const PROXIED = ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2'] as const

/** What a terminal makes a signal of while it is not raw. */
const SIGNALS: ReadonlyMap<number, (typeof PROXIED)[number]> = new Map([
  [0x03, 'SIGINT'],
  [0x1c, 'SIGQUIT'],
])

interface Sender {
  /** One after the other, in the order in which they came. */
  send(signal: string): void
  /** Resolves when all are sent, or refused. */
  settled(): Promise<void>
}

function sender(client: Client, options: GlobalOptions, pod: string): Sender {
  const path = `${podPath(options, pod)}/kill`
  const send = async (signal: string, before: Promise<void>): Promise<void> => {
    await before
    try {
      await client.json({ method: 'POST', path, body: { signal } })
    } catch (error) {
      say(`casemate: ${signal} was not passed on: ${error instanceof Error ? error.message : ''}`)
    }
  }
  let last = Promise.resolve()
  return {
    send: (signal) => {
      last = send(signal, last)
    },
    settled: () => last,
  }
}

/** Looks at what is typed, if it is a terminal's. Answers how to give the terminal back. */
function watchKeys(keys: DetachKeys, signal: (name: string) => void, left: () => void): () => void {
  const { stdin } = process
  if (!stdin.isTTY) return () => undefined
  stdin.setRawMode(true)
  stdin.on('data', (typed: Buffer) => {
    const bytes = keys.take(typed)
    if (bytes === null) left()
    else for (const byte of bytes) signal(SIGNALS.get(byte) ?? '')
  })
  return () => {
    stdin.pause()
    stdin.setRawMode(false)
  }
}

async function attach(client: Client, pod: string, options: AttachOptions): Promise<number> {
  if (options.interactive === true) refuseTerminal()
  const found = await client.json({ method: 'GET', path: podPath(options, pod) })
  const state = field(found, 'state')
  if (['exited', 'failed', 'refused'].includes(state)) {
    throw new Error(`${pod} is ${state}: \`casemate logs\` shows what it wrote`)
  }
  const id = field(found, 'id')
  const signals = sender(client, options, id)
  const leave = (): void => {
    restore()
    say(`casemate: detached; ${pod} runs on`)
    void signals.settled().then(() => process.exit(EXIT.ok))
  }
  const pass = (name: string): void => {
    if (name === '') return
    if (options.sigProxy) signals.send(name)
    else leave()
  }
  const restore = watchKeys(options.detachKeys, pass, leave)
  if (options.sigProxy) for (const signal of PROXIED) process.on(signal, pass)
  const input = options.interactive === true ? await passInput(options, id) : null
  try {
    const shown = { follow: true, all: false, timestamps: false }
    await printLogs(client, options, { pod: id, query: { tail: '0' }, ...shown })
    return await endOf(client, options, id)
  } finally {
    restore()
    input?.stop()
  }
}

export function addAttach(program: Command): void {
  program
    .command('attach')
    .description('show what a running pod writes from now on, pass signals on, end as it ends')
    .argument('<pod>')
    .option('-i, --interactive', 'pass standard input on, a pipe or a file')
    .option('--no-sig-proxy', 'keep signals here: ctrl-c then detaches')
    .option(
      '--detach-keys <keys>',
      'leave with these; the pod runs on',
      (text) => new DetachKeys(text),
      new DetachKeys(DETACH_KEYS),
    )
    .action(async (pod: string, given: AttachOptions, command: Command) => {
      const options = { ...globalsOf(command), ...given }
      await withClient(options, async (client) => {
        try {
          process.exitCode = await attach(client, pod, options)
        } catch (error) {
          // Every code below 125 is the program's.
          throw error instanceof Error ? Object.assign(error, { exitCode: EXIT.notRun }) : error
        }
      })
    })
}
