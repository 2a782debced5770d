/**
 * `casemate cp`: files out of a pod and into it, as a tar archive that our own code in the pod reads or writes. What it
 * sends is taken for hostile (unpack.ts).
 */
import { closeSync, mkdirSync, realpathSync, statSync } from 'node:fs'
import path from 'node:path'
import { pipeline } from 'node:stream/promises'
import type { Command } from 'commander'
import type { WebSocket } from 'ws'
import { UsageError } from './arguments.ts'
import { type GlobalOptions, podPath } from './context.ts'
import { listen, send } from './copy-session.ts'
import { EXIT } from './exit-codes.ts'
import { codeOf, openNamed } from './local-tree.ts'
import { bytesOf } from './mounts.ts'
import { plain, say } from './output.ts'
import { pack } from './pack.ts'
import { type Target, unpack } from './unpack.ts'
import { openWebSocket } from './web-socket.ts'

interface CopyOptions extends GlobalOptions {
  readonly user?: string
  readonly maxSize?: number
}

const SIZE_MAX: number = 8 * 2 ** 30
const STREAM = '-'

const sizeOf = (text: string): number => bytesOf('--max-size', text)

/** `POD:/path`, as Docker reads it: a local name with a colon is `./name`. */
function inPod(text: string): InPod | null {
  const found = /^([^/:.][^/:]*):(.*)$/su.exec(text)
  if (found === null) return null
  const [, pod = '', place = ''] = found
  if (place.startsWith('/')) return { pod, path: place }
  throw new UsageError(`${text}: a path in a pod begins with /`)
}

const statOf = (place: string): ReturnType<typeof statSync> | null => {
  try {
    return statSync(place)
  } catch {
    return null
  }
}

/** What the archive of a path of a pod calls the one thing it has; null: what is in a directory is meant. */
function firstOf(place: string): Buffer | null {
  const name = place.replace(/\/+$/u, '').split('/').at(-1) ?? ''
  return ['', '.', '..'].includes(name) ? null : Buffer.from(name)
}

/** Opens the directory that an archive goes to. @throws UsageError */
function targetOf(place: string, first: Buffer | null, bytesMax: number): Target {
  try {
    if (statOf(place)?.isDirectory() === true) {
      return { root: openNamed(place), first, rename: null, bytesMax }
    }
    if (first === null) {
      mkdirSync(place)
      return { root: openNamed(place), first, rename: null, bytesMax }
    }
    if (place.endsWith('/')) throw new UsageError(`${place} is no directory`)
    const rename = Buffer.from(path.basename(place))
    return { root: openNamed(path.dirname(place)), first, rename, bytesMax }
  } catch (cause) {
    if (cause instanceof UsageError) throw cause
    throw new UsageError(`${place} cannot be written: ${codeOf(cause)}`, { cause })
  }
}

const copyPath = (
  options: CopyOptions,
  pod: string,
  query: Readonly<Record<string, string>>,
): string => {
  const all = new URLSearchParams(query)
  if (options.user !== undefined) all.set('user', options.user)
  return `${podPath(options, pod)}/copy?${all.toString()}`
}

const tell = (line: string): void => {
  say(plain(line))
}

interface InPod {
  readonly pod: string
  readonly path: string
}

const openOut = ({ pod, path: place }: InPod, options: CopyOptions): Promise<WebSocket> =>
  openWebSocket(options, copyPath(options, pod, { direction: 'out', path: place }))

async function streamOut(from: InPod, options: CopyOptions): Promise<number> {
  if (options.maxSize !== undefined) throw new UsageError('--max-size is for files, not for -')
  if (process.stdout.isTTY) throw new UsageError('an archive is nothing for a terminal: > FILE')
  const { archive, code } = listen(await openOut(from, options))
  await pipeline(archive, process.stdout, { end: false })
  return await code
}

async function unpackInto(target: Target, socket: WebSocket): Promise<number> {
  const { archive, code } = listen(socket)
  try {
    const isWhole = await unpack(archive, target, tell)
    const told = await code
    return told === EXIT.ok && !isWhole ? EXIT.error : told
  } catch (error) {
    if (!isCutShort(error)) {
      // Nobody reads on: an orderly end would wait behind what the pod still sends.
      socket.terminate()
      throw error
    }
    socket.close()
    // What the pod said of its end explains an archive without one.
    const told = await code
    if (told === EXIT.ok) throw error
    return told
  }
}

async function copyOut(from: InPod, to: string, options: CopyOptions): Promise<number> {
  if (to === STREAM) return await streamOut(from, options)
  const target = targetOf(to, firstOf(from.path), options.maxSize ?? SIZE_MAX)
  try {
    return await unpackInto(target, await openOut(from, options))
  } finally {
    closeSync(target.root)
  }
}

/** The archive ended early, which is what one looks like that could not be made. */
const isCutShort = (error: unknown): boolean =>
  error instanceof Error && /the archive ends/u.test(error.message)

async function copyIn(from: string, to: InPod, options: CopyOptions): Promise<number> {
  if (options.maxSize !== undefined) throw new UsageError('--max-size is for copies out of a pod')
  const { path: place } = to
  if (from === STREAM) {
    const query = { direction: 'in', path: place, place: 'inside', owners: 'true' }
    const socket = await openWebSocket(options, copyPath(options, to.pod, query))
    const { code } = listen(socket)
    // Whoever feeds this may have nothing more to say for long.
    socket.once('close', () => process.stdin.destroy())
    await send(socket, process.stdin).catch((error: unknown) => {
      if (socket.readyState === socket.OPEN) throw error
    })
    return await code
  }
  if (statOf(from) === null) throw new UsageError(`${from}: there is no such file`)
  const isContent = /(?:^|\/)\.\.?\/?$/u.test(from)
  const name = isContent ? Buffer.from('.') : Buffer.from(path.basename(path.resolve(from)))
  const packing = pack(realpathSync(from), name, tell)
  const query = { direction: 'in', path: place, place: isContent ? 'inside' : 'named' }
  const socket = await openWebSocket(options, copyPath(options, to.pod, query))
  const { code } = listen(socket)
  await send(socket, packing.archive)
  const told = await code
  return told === EXIT.ok && !packing.isWhole() ? EXIT.error : told
}

async function copy(from: string, to: string, options: CopyOptions): Promise<number> {
  const [out, into] = [inPod(from), inPod(to)]
  if (out !== null && into === null) return await copyOut(out, to, options)
  if (out === null && into !== null) return await copyIn(from, into, options)
  throw new UsageError('one of the two is POD:/path, the other a file here, a directory, or -')
}

export function addCopy(program: Command): void {
  program
    .command('cp')
    .description('copy files out of a running pod, or into it; - is a tar archive')
    .argument('<from>', 'POD:/path, or a file or directory here; - reads an archive')
    .argument('<to>', 'POD:/path, or a place here; - writes an archive')
    .option('-u, --user <user>', 'as whom in the pod; else the app’s user')
    .option('--max-size <size>', 'most bytes that are written here, 8g if not said', sizeOf)
    .action(async (from: string, to: string, _options, command: Command) => {
      process.exitCode = await copy(from, to, command.optsWithGlobals<CopyOptions>())
    })
}
