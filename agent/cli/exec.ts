/**
 * `casemate exec`: a program in a running pod, with this terminal or with pipes. The exit code is the program's;
 * 125 when Casemate refused or failed, 126 and 127 when the program could not be started, 128 and a signal's number.
 */
import type { Command } from 'commander'
import type { WebSocket } from 'ws'
import { CHANNELS, message } from '../exec-channels.ts'
import { UsageError } from './arguments.ts'
import { type GlobalOptions, podPath, several } from './context.ts'
import { DETACH_KEYS, DetachKeys } from './detach-keys.ts'
import { EXIT } from './exit-codes.ts'
import { field, plain, say } from './output.ts'
import { openWebSocket } from './web-socket.ts'

interface ExecOptions extends GlobalOptions {
  readonly interactive?: boolean
  readonly tty?: boolean
  readonly env?: readonly string[]
  readonly user?: string
  readonly workdir?: string
  readonly detachKeys: DetachKeys
}

/** Typed or piped bytes under way; above it nothing more is read. */
const UNSENT_BYTES_MAX = 1 << 18

function pathOf(pod: string, args: readonly string[], options: ExecOptions): string {
  const query = new URLSearchParams()
  for (const argument of args) query.append('command', argument)
  for (const entry of options.env ?? []) query.append('env', entry)
  for (const name of ['user', 'workdir'] as const) {
    const value = options[name]
    if (value !== undefined) query.append(name === 'workdir' ? 'cwd' : name, value)
  }
  query.append('stdin', String(options.interactive === true))
  query.append('stdout', 'true')
  query.append('stderr', String(options.tty !== true))
  query.append('tty', String(options.tty === true))
  return `${podPath(options, pod)}/exec?${query.toString()}`
}

function sendSize(socket: WebSocket): void {
  const { rows, columns } = process.stdout
  if (socket.readyState !== socket.OPEN || rows === undefined) return
  socket.send(
    message(CHANNELS.resize, Buffer.from(JSON.stringify({ Width: columns, Height: rows }))),
  )
}

/** What is typed or piped, until `left`. Answers how to give the terminal back. */
function passInput(socket: WebSocket, options: ExecOptions, left: () => void): () => void {
  const { stdin } = process
  const raw = options.tty === true && stdin.isTTY
  if (raw) stdin.setRawMode(true)
  const give = (bytes: Buffer): void => {
    if (bytes.length === 0 || socket.readyState !== socket.OPEN) return
    socket.send(message(CHANNELS.stdin, bytes), () => {
      if (socket.bufferedAmount < UNSENT_BYTES_MAX) stdin.resume()
    })
    if (socket.bufferedAmount >= UNSENT_BYTES_MAX) stdin.pause()
  }
  stdin.on('data', (typed: Buffer) => {
    const bytes = raw ? options.detachKeys.take(typed) : typed
    if (bytes === null) left()
    else give(bytes)
  })
  stdin.on('end', () => {
    if (socket.readyState === socket.OPEN) {
      socket.send(message(CHANNELS.close, Buffer.from([CHANNELS.stdin])))
    }
  })
  return () => {
    stdin.pause()
    if (raw) stdin.setRawMode(false)
  }
}

/** @param text metav1.Status */
export function exitCodeIn(text: string): number {
  const status: unknown = JSON.parse(text)
  if (field(status, 'status') === 'Success') return EXIT.ok
  const cause = field(status, 'details', 'causes', '0', 'message')
  const said = plain(field(status, 'message'))
  const code = Number(cause)
  if (field(status, 'reason') === 'NonZeroExitCode' && Number.isInteger(code)) {
    if (!said.startsWith('command terminated')) say(`casemate: ${said}`)
    return code
  }
  say(`casemate: ${said} (${plain(cause)})`)
  return EXIT.notRun
}

/** Writes what comes, no faster than it is taken, and resolves with the exit code. */
function follow(socket: WebSocket, begin: (left: () => void) => () => void): Promise<number> {
  return new Promise((resolve) => {
    let code: number | null = null
    const restore = begin(() => {
      say('casemate: detached; the program was hung up on')
      code = EXIT.ok
      socket.close()
    })
    socket.on('message', (data: Buffer) => {
      const [channel, bytes] = [data[0], data.subarray(1)]
      if (channel === CHANNELS.error) {
        restore()
        code ??= exitCodeIn(bytes.toString())
        return
      }
      const to = channel === CHANNELS.stderr ? process.stderr : process.stdout
      if (to.write(bytes)) return
      socket.pause()
      to.once('drain', () => socket.resume())
    })
    socket.on('error', (error) => say(`casemate: ${plain(error.message)}`))
    socket.once('close', () => {
      restore()
      if (code === null) say('casemate: the connection ended before the program did')
      resolve(code ?? EXIT.notRun)
    })
    socket.resume()
  })
}

async function exec(pod: string, args: readonly string[], options: ExecOptions): Promise<number> {
  if (options.tty === true && options.interactive === true && !process.stdin.isTTY) {
    throw new UsageError('standard input is no terminal: leave out -t')
  }
  const socket = await openWebSocket(options, pathOf(pod, args, options))
  const resized = (): void => {
    sendSize(socket)
  }
  if (options.tty === true) {
    resized()
    process.stdout.on('resize', resized)
  }
  try {
    return await follow(socket, (left) =>
      options.interactive === true ? passInput(socket, options, left) : () => undefined,
    )
  } finally {
    process.stdout.off('resize', resized)
  }
}

export function addExec(program: Command): void {
  program
    .command('exec')
    .description('execute a program in a running pod, under all that its app is under')
    .argument('<pod>')
    .argument('<command...>', 'program and arguments; after --')
    .option('-i, --interactive', 'pass standard input on')
    .option('-t, --tty', 'give it a terminal')
    .option('-e, --env <KEY=value>', 'environment on top of the app’s, repeatable', several)
    .option('-u, --user <user>', 'uid, uid:gid, name or name:group; else the app’s')
    .option('-w, --workdir <path>', 'working directory; else the app’s')
    .option(
      '--detach-keys <keys>',
      'leave with these; the program is hung up on',
      (text) => new DetachKeys(text),
      new DetachKeys(DETACH_KEYS),
    )
    .action(async (pod: string, args: readonly string[], _options, command: Command) => {
      const options = command.optsWithGlobals<ExecOptions>()
      try {
        process.exitCode = await exec(pod, args, options)
      } catch (error) {
        // Every code below 125 is the program's.
        throw error instanceof Error ? Object.assign(error, { exitCode: EXIT.notRun }) : error
      }
    })
}
