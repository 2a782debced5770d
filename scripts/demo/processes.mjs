/** Programs that the demo starts: some run to their end, some until the demo is over. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createServer } from 'node:net'
import { text } from 'node:stream/consumers'

/** A program that failed: what it was called, how it ended, its last words. */
export class Failed extends Error {
  constructor(command, status, stdout, stderr) {
    super(`${command.join(' ')}\n  ended with ${status}: ${stderr.trim().slice(-2000)}`)
    this.name = 'Failed'
    this.status = status
    this.stdout = stdout
    this.stderr = stderr
  }
}

/** Runs to the end; resolves with { status, stdout, stderr }. What runs beside goes on meanwhile. */
export async function run(command) {
  const [program, ...args] = command
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] })
  const [stdout, stderr, [status, signal]] = await Promise.all([
    text(child.stdout),
    text(child.stderr),
    once(child, 'close'),
  ])
  return { status: status ?? signal, stdout, stderr }
}

/** Runs to the end and resolves with what it printed. */
export async function must(command) {
  const { status, stdout, stderr } = await run(command)
  if (status !== 0) throw new Failed(command, status, stdout, stderr)
  return stdout
}

/** A program that stays: resolves when `ready` says that a line of its output means it serves. */
export async function start(command, ready, options = {}) {
  const [program, ...args] = command
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], ...options })
  const said = []
  await new Promise((resolve, reject) => {
    const look = (chunk) => {
      said.push(String(chunk))
      if (said.join('').split('\n').some(ready)) resolve()
    }
    child.stdout.on('data', look)
    child.stderr.on('data', look)
    child.once('error', reject)
    child.once('exit', (code, signal) => {
      reject(new Failed(command, code ?? signal, '', said.join('')))
    })
  })
  return {
    child,
    end: () =>
      new Promise((resolve) => {
        if (child.exitCode !== null || child.signalCode !== null) resolve()
        child.once('exit', () => resolve())
        child.kill('SIGTERM')
      }),
  }
}

/** A free port on loopback. Somebody could take it before it is used; then the demo says so. */
export const freePort = () =>
  new Promise((resolve, reject) => {
    const server = createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
