/** Programs that start containers, by their command lines. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { promisify } from 'node:util'
import type { Peer, Started } from './peer.ts'

const run = promisify(execFile)

let made = 0
/** Nobody else's on this host. */
export const freshName = (): string => {
  made += 1
  return `casemate-bench-${process.pid}-${made}`
}

/** Resolves at the first output. @throws Error when it ends without */
async function firstOutput(child: ChildProcess, name: string): Promise<void> {
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk.toString()
  })
  const { stdout } = child
  if (stdout === null) throw new Error(`${name} has no output`)
  await Promise.race([
    once(stdout, 'data'),
    once(child, 'close').then(() => {
      throw new Error(`${name} wrote nothing: ${said.trim()}`)
    }),
  ])
  stdout.resume()
}

/** The words before those of a program: to start a container, to execute in it, to stop it. */
export interface Words {
  readonly name: string
  run(container: string, args: readonly string[]): readonly string[]
  exec(container: string): readonly string[]
  stop(container: string): readonly string[]
}

/** @param flood runs a container to its end, with its output where its logs are */
export function peerOf(words: Words, flood: Peer['run']): Peer {
  const call = async (command: readonly string[]): Promise<void> => {
    const [program = '', ...args] = command
    await run(program, args)
  }
  const start = async (args: readonly string[]): Promise<Started> => {
    const container = freshName()
    const [program = '', ...more] = words.run(container, args)
    const child = spawn(program, more, { stdio: ['ignore', 'pipe', 'pipe'] })
    const closed = once(child, 'close')
    await firstOutput(child, words.name)
    return {
      exec: (what) => call([...words.exec(container), ...what]),
      stop: async () => {
        await call(words.stop(container))
        await closed
      },
    }
  }
  return { name: words.name, start, run: flood }
}
