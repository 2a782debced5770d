/**
 * `casemate up`: signer, spawn and agent, each under its own user, for trying out and for hosts
 * without systemd. The only privileged thing it does for long is to wait.
 *
 * Signer and agent are started again when they end, as often as it takes: pods run on without them.
 * So they do without spawn, as long as somebody keeps its descriptors: that is a small process of
 * its own, `casemate-spawn --keep`, which starts spawn again and gives it up when it is killed again
 * and again. The end of that process ends everything: nobody could account for a pod any more.
 *
 * It lives in a mount namespace of its own, in which the checkout is mounted read-only at run/code:
 * so a checkout below a private home works for users that may not enter it, and none of them can
 * change the code it runs.
 */
import { execFileSync } from 'node:child_process'
import { accessSync, constants, statSync } from 'node:fs'
import path from 'node:path'
import { type Accounts, ensureAccounts } from './accounts.ts'
import { type Artifacts, readArtifacts } from './artifacts.ts'
import { asUser, type Child, startChild } from './child.ts'
import { makeFolders, nodeId, type Settings, writeConfiguration } from './configuration.ts'
import { keep } from './kept.ts'
import type { Layout } from './layout.ts'

export interface UpPlan {
  readonly layout: Layout
  readonly settings: Settings
  /** The checkout, by its own path. */
  readonly checkout: string
  /** Called with each thing that was done, for people. */
  readonly tell: (line: string) => void
}

export interface Running {
  /** Resolves when it cannot go on, with why. */
  readonly failed: Promise<string>
  /** Ends the pods, with their ends on record, and the agent; then spawn, then the signer. */
  end(): Promise<void>
}

/** Tells the agent to end with its pods; TERM ends it alone. */
const END_WITH_PODS = 'SIGUSR2'

/** How lines begin in which the keeper of spawn says what it does. */
const KEEPER = 'casemate-spawn --keep: '

const NODE_FILE_MODE = 0o755

/** Puts this process into a mount namespace of its own, by starting it again. Does not return. */
export function enterNamespace(args: readonly string[]): never {
  if (process.geteuid?.() !== 0) {
    throw new Error('casemate up needs root: it starts processes under users of their own')
  }
  if (process.execve === undefined) throw new Error('this Node has no process.execve: use Node 24')
  const command = [
    'unshare',
    '--mount',
    '--propagation',
    'private',
    '--',
    process.execPath,
    ...args,
  ]
  process.execve('/usr/bin/unshare', command)
  throw new Error('unshare could not be started')
}

/** Mounts the checkout read-only; also again, over what an earlier run in this namespace mounted. */
function mountCode(checkout: string, code: string): void {
  if ((statSync(checkout).mode & 0o005) !== 0o005) {
    throw new Error(`${checkout} must be readable for other users: chmod o+rx ${checkout}`)
  }
  execFileSync('mount', ['--bind', checkout, code])
  execFileSync('mount', ['-o', 'remount,bind,ro,nosuid,nodev', code])
}

/** The first folder on the way to `file` that other users may not enter, or null. */
function closedFolder(file: string): string | null {
  const parts = file.split('/').slice(1, -1)
  const folders = parts.map((_, at) => `/${parts.slice(0, at + 1).join('/')}`)
  return folders.find((folder) => (statSync(folder).mode & 0o001) === 0) ?? null
}

/** This Node where the other users find it. @throws when it lies where they cannot go */
function nodeProgramOf(checkout: string, code: string): string {
  const inside = path.relative(checkout, process.execPath)
  const program = inside.startsWith('..') ? process.execPath : path.join(code, inside)
  const closed = closedFolder(program)
  if (closed !== null) {
    throw new Error(`${closed} must let other users through (chmod o+x), or choose another place`)
  }
  if ((statSync(program).mode & NODE_FILE_MODE) !== NODE_FILE_MODE) {
    throw new Error(`other users cannot run ${program}: start with the Node that set-up installs`)
  }
  return program
}

/** What the processes are started with, once everything around them is in place. */
export interface Host {
  readonly layout: Layout
  readonly settings: Settings
  readonly accounts: Accounts
  readonly artifacts: Artifacts
  readonly node: string
  /** Node where every user finds it. */
  readonly program: string
}

/** Users, folders, and the code where the processes see it. Needs a mount namespace of its own. */
export function prepareHost({ layout, settings, checkout }: UpPlan): Host {
  const accounts = ensureAccounts()
  makeFolders(layout, accounts)
  mountCode(checkout, layout.code)
  const program = nodeProgramOf(checkout, layout.code)
  const artifacts = readArtifacts(checkout, layout.code)
  accessSync(artifacts.spawn, constants.X_OK)
  return { layout, settings, accounts, artifacts, node: nodeId(layout), program }
}

export async function startSigner(host: Host, signal?: AbortSignal): Promise<Child> {
  const { layout, accounts, node, program } = host
  const options = {
    socket: layout.signerSocket,
    keys: layout.signerState,
    vkey: layout.signerVkey,
    origin: `casemate/${node}`,
    uid: String(accounts.agent.uid),
    gid: String(accounts.agent.gid),
    peers: `${layout.code}/native/addon.ts`,
  }
  const flags = Object.entries(options).flatMap(([name, value]) => [`--${name}`, value])
  const command = [program, `${layout.code}/audit/signer/main.ts`, ...flags]
  const plan = {
    name: 'signer',
    // A network namespace with nothing in it: the key can leave through no socket.
    command: ['unshare', '--net', '--', ...asUser(accounts.signer, [accounts.agent.gid], command)],
    ready: 'ready ',
    logFile: path.join(layout.logs, 'signer.log'),
  } as const
  return await startChild(plan, signal)
}

/** Writes what spawn and the agent read; both trust this key of the signer's. */
export function configure(host: Host, vkey: string): void {
  writeConfiguration({ ...host, vkey, nodeProgram: host.program })
}

/** Spawn, and who keeps it running; `tell` hears of its ends and new starts. */
export async function startSpawn(
  { layout, artifacts }: Host,
  tell: (line: string) => void,
): Promise<Child> {
  const command = [artifacts.spawn, '--keep', '--config', layout.spawnConfig]
  return await startChild({
    name: 'spawn',
    command: ['setpriv', '--pdeathsig=TERM', '--', ...command],
    ready: 'casemate-spawn: ready',
    logFile: path.join(layout.logs, 'spawn.log'),
    heard: (line) => {
      if (line.startsWith(KEEPER)) tell(line.slice(KEEPER.length))
    },
  })
}

export async function startAgent(host: Host, signal?: AbortSignal): Promise<Child> {
  const { layout, accounts, program } = host
  const command = [program, `${layout.code}/agent/main.ts`, '--config', layout.agentConfig]
  const plan = {
    name: 'agent',
    command: asUser(accounts.agent, [], command),
    ready: 'ready',
    logFile: path.join(layout.logs, 'agent.log'),
  } as const
  return await startChild(plan, signal)
}

/** The signer with the key that the configuration trusts, or none: another would sign for nobody. */
async function sameSigner(host: Host, vkey: string, signal: AbortSignal): Promise<Child> {
  const signer = await startSigner(host, signal)
  if (signer.said === vkey) return signer
  await signer.end()
  throw new Error(`casemate-signer has another key than before: ${host.layout.signerState}`)
}

/** Starts all three. What was started is ended again when one of them does not come up. */
export async function up(plan: UpPlan): Promise<Running> {
  const { layout, tell } = plan
  const host = prepareHost(plan)
  const ends: (() => Promise<void>)[] = []
  const end = async (): Promise<void> => {
    for (const one of ends.toReversed()) await one()
  }
  try {
    let vkey: string | null = null
    const signer = await keep({
      name: 'signer',
      start: (signal) =>
        vkey === null ? startSigner(host, signal) : sameSigner(host, vkey, signal),
      tell,
    })
    ends.push(() => signer.end())
    vkey = signer.said
    configure(host, vkey)
    tell(`signer  ready, key ${vkey}`)
    const spawn = await startSpawn(host, tell)
    ends.push(() => spawn.end())
    tell(`spawn   ready, ${layout.spawnSocket}`)
    let spawnRuns = true
    void spawn.ended.then(() => (spawnRuns = false))
    const agent = await keep({ name: 'agent', start: (signal) => startAgent(host, signal), tell })
    ends.push(() => agent.end(spawnRuns ? END_WITH_PODS : 'SIGTERM'))
    tell(`agent   ready, ${path.join(layout.agentRun, 'agent.sock')}`)
    const failed = spawn.ended.then((how) => `casemate-spawn ended for good: ${how}`)
    return { failed, end }
  } catch (error) {
    await end()
    throw error
  }
}
