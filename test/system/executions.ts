/** Processes beside an app, as tests ask for them: recorded, with the receipt. */
import assert from 'node:assert/strict'
import { type Clock, deadlineIn, systemClock } from '../../audit/index.ts'
import { type Errand, errandRequest } from '../../native/errand-request.ts'
import { type ExecRequest, execRequest } from '../../native/exec-request.ts'
import type { ExecEnd, ExecStream, OutputName } from '../../native/exec-stream.ts'
import { parseArguments, parseEnvironment, parseUser } from '../../policy/index.ts'
import { parseWorkingDirectory } from '../../policy/nouns/process.ts'
import type { Machine } from './harness.ts'
import type { Papers, Running } from './launch.ts'

export const clock: Clock = systemClock()

export interface Said {
  readonly stdout: string
  readonly stderr: string
  readonly end: ExecEnd
}

export interface More {
  readonly app?: string
  readonly cwd?: string
  readonly env?: readonly string[]
  readonly user?: string
  readonly terminal?: { readonly rows: number; readonly columns: number }
}

export const asked = (args: readonly string[], more: More = {}): ExecRequest =>
  execRequest({
    app: more.app ?? null,
    args: parseArguments(args),
    env: parseEnvironment(more.env ?? []),
    cwd: more.cwd === undefined ? null : parseWorkingDirectory(more.cwd),
    user: more.user === undefined ? null : parseUser(more.user),
    terminal: more.terminal ?? null,
  })

/** An errand of our own code in the pod, as the app's user. */
export const errand = (wish: Errand, user: string | null = null): ExecRequest =>
  errandRequest({ errand: wish, user: user === null ? null : parseUser(user) })

/** The exec.intent of a request, as the log takes it. */
export const intent = (
  { prepared }: Running,
  digest: string,
  pod: string = prepared.pod,
): Parameters<Machine['log']['append']>[0] => ({
  type: 'exec.intent',
  launch_id: pod,
  tenant: prepared.plan.tenant,
  actor: {
    sub: 'uid:0',
    kind: 'operator',
    auth: { method: 'unix-peer', iss: null, jti: null, uid: 0, src_ip: null },
  },
  exec_id: clock.uuid(),
  policy: { bundle: digest, decision: 'allow', determining: ['test'], reasons: [] },
  request: digest,
  program: 'test',
  user: null,
  terminal: false,
  env_names: [],
  deadline: deadlineIn(clock, 25_000),
})

/** All that it says, read as it comes. */
export const listen = (exec: ExecStream): { said: () => string; end: Promise<Said> } => {
  const out: Record<OutputName, string> = { stdout: '', stderr: '' }
  exec.on('output', (name, bytes) => {
    out[name] += bytes.toString()
    exec.taken(name, bytes.length)
  })
  const end = new Promise<Said>((resolve) => {
    exec.on('end', (how) => resolve({ ...out, end: how }))
  })
  return { said: () => out.stdout, end }
}

export const until = async (exec: ExecStream, said: () => string, words: RegExp): Promise<void> => {
  while (!words.test(said())) {
    assert.equal(exec.over, false, `it ended and said ${said()}`)
    // oxlint-disable-next-line no-await-in-loop -- what comes next
    await new Promise((resolve) => exec.once('output', resolve))
  }
}

export const code = (value: number): ExecEnd => ({ kind: 'exit', how: 'code', value })

export interface Executions {
  /** Record and receipt of a request with this digest. @param pod in place of its own */
  readonly papers: (
    running: Running,
    digest: string,
    pod?: string,
  ) => Promise<{ readonly ticket: Papers['ticket']; readonly record: Buffer }>
  readonly begin: (running: Running, request: ExecRequest) => Promise<ExecStream>
  /** From its start to its end, without input. */
  readonly run: (running: Running, args: readonly string[], more?: More) => Promise<Said>
}

export function executions(machine: Machine): Executions {
  const papers = async (running: Running, digest: string, pod?: string) => {
    const { index, bytes } = await machine.log.append(intent(running, digest, pod))
    return { ticket: await machine.log.receipt(index), record: bytes }
  }

  const begin = async (running: Running, request: ExecRequest): Promise<ExecStream> => {
    const own = await papers(running, request.digest)
    return running.stream.exec({ ...own, request: request.bytes })
  }

  const run = async (running: Running, args: readonly string[], more?: More): Promise<Said> => {
    const exec = await begin(running, asked(args, more))
    exec.stdinEof()
    return await listen(exec).end
  }

  return { papers, begin, run }
}
