/** Runs programs: output to a log file, and failures that say what to do. */
import { spawn, spawnSync } from 'node:child_process'
import { createWriteStream, mkdirSync } from 'node:fs'
import path from 'node:path'
import { finished } from 'node:stream/promises'
import { logs, nodeFolder, root } from './paths.mjs'

/** A failure that a person can do something about: `message` says what failed, `advice` what to do. */
export class SetupError extends Error {
  constructor(message, advice) {
    super(message)
    this.name = 'SetupError'
    this.advice = advice
  }
}

/** The environment of every child: Node 24 first, messages in English because some are read. */
export const environment = (extra = {}) => ({
  ...process.env,
  LC_ALL: 'C',
  PATH: `${nodeFolder}:${process.env.PATH}`,
  ...extra,
})

/** Runs a short program and returns what it printed, or null when it is missing or failed. */
export function capture(command, options = {}) {
  const [program, ...args] = command
  const result = spawnSync(program, args, {
    cwd: root,
    env: environment(),
    encoding: 'utf8',
    maxBuffer: 64 * 1024 * 1024,
    ...options,
  })
  return result.status === 0 ? result.stdout.trim() : null
}

/** The last words of a log, for the message of a failure. */
const TAIL_LINES = 12

/** One step's log file and the programs it runs. `onLine` sees each line of output as it comes. */
export class Log {
  #stream
  #tail = []
  #rest = ''
  constructor(name, onLine = () => {}) {
    mkdirSync(logs, { recursive: true })
    this.file = path.join(logs, `${name}.log`)
    this.onLine = onLine
    this.#stream = createWriteStream(this.file)
  }

  write(text) {
    this.#stream.write(text)
    const lines = `${this.#rest}${text}`.split(/[\r\n]+/u)
    this.#rest = lines.pop() ?? '' // programs write lines in pieces
    for (const line of lines) {
      if (line.trim() === '') continue
      this.#tail = [...this.#tail.slice(1 - TAIL_LINES), line]
      this.onLine(line)
    }
  }

  /** Runs `command`; throws a SetupError that names command, log and advice when it fails. */
  async run(
    command,
    { advice = 'read the log, mend the cause, run the same command again', ...options } = {},
  ) {
    const [program, ...args] = command
    const { env, ...rest } = options
    this.write(`\n$ ${command.join(' ')}\n`)
    const child = spawn(program, args, {
      cwd: root,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: environment(env),
      ...rest,
    })
    for (const pipe of [child.stdout, child.stderr]) {
      pipe.setEncoding('utf8').on('data', (text) => this.write(text))
    }
    const stop = () => child.kill('SIGTERM') // nothing goes on building when set-up is ended
    process.once('exit', stop)
    const how = await new Promise((resolve) => {
      child.on('error', (error) => resolve(error.message))
      child.on('close', (code, signal) =>
        resolve(code === 0 ? null : `ended with ${signal ?? code}`),
      )
    })
    process.removeListener('exit', stop)
    if (how === null) return
    const words = this.#tail.map((line) => `    ${line}`).join('\n')
    throw new SetupError(`\`${command.join(' ')}\` ${how}\n${words}\n  log: ${this.file}`, advice)
  }

  async close() {
    this.#stream.end()
    await finished(this.#stream)
  }
}
