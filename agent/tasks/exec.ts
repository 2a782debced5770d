/**
 * One more process in a running pod: decided, on record, and then asked for with the record's receipt, which the
 * VMM checks. Unlike a stop it waits for the log: nothing runs that is not on record.
 *
 * What the agent forgets when it ends are the sessions: VMM and guest end them with its connection. So an exec.intent
 * without an exec.ended is one whose agent ended.
 */
import { once } from 'node:events'
import { deadlineIn } from '../../audit/index.ts'
import { type Errand, type ErrandWish, errandRequest } from '../../native/errand-request.ts'
import { type ExecRequest, type ExecWish, execRequest } from '../../native/exec-request.ts'
import type { ExecEnd, ExecStream } from '../../native/exec-stream.ts'
import { type PodStream, SESSIONS_MAX } from '../../native/pod-stream.ts'
import {
  decideExec,
  type ExecDecision,
  type ExecQuery,
  Refusal,
  type TenantId,
} from '../../policy/index.ts'
import { environmentKey } from '../../policy/nouns/process.ts'
import { ApiError } from '../errors.ts'
import { Budget, type Rate } from './budget.ts'
import { type ChangeCall, type ChangePorts, runningPod } from './changes.ts'
import type { Ports } from './ports.ts'
import { actorOf, refusalFacts } from './record-parts.ts'
import type { Watch } from './watch.ts'

/** The VMM takes a ticket for at most 30 s. */
const TICKET_MS = 25_000
/** Sessions of one tenant at a time, in all of its pods. */
export const EXEC_SESSIONS_MAX = 32
/** What a tenant can write into the log by executing: so many in a row, and one more each second. */
export const EXECS: Rate = { most: 60, refillMs: 1000 }
const PROGRAM_CHARACTERS_MAX = 256

export interface ExecPorts extends ChangePorts, Pick<Ports, 'audit' | 'clock' | 'policies'> {
  readonly watch: Watch
  readonly execs: ExecCounts
}

export interface ExecCall extends ChangeCall {
  readonly wish: ExecWish | ErrandWish
}

/** What policy and record say of a wish. */
interface Sought {
  readonly program: string
  readonly errand: Errand | null
  readonly user: string | null
  readonly terminal: boolean
  readonly envNames: readonly string[]
  readonly request: () => ExecRequest
}

function soughtOf(wish: ExecWish | ErrandWish): Sought {
  const { user } = wish
  if ('errand' in wish) {
    const { errand } = wish
    const request = () => errandRequest(wish)
    return { program: '', errand, user, terminal: false, envNames: [], request }
  }
  const terminal = wish.terminal !== null
  const envNames = wish.env.map(environmentKey)
  const request = () => execRequest(wish)
  return { program: wish.args[0] ?? '', errand: null, user, terminal, envNames, request }
}

const errandFacts = (errand: Errand): { kind: string; path: string | null } => ({
  kind: errand.kind,
  path: 'path' in errand ? errand.path : null,
})

/** Why a session ended, beside what the guest said of it. */
export type EndReason = 'caller-gone' | 'agent-stopped' | null

/** How many sessions each tenant has, and how many it had lately. */
export class ExecCounts {
  readonly #open = new Map<TenantId, number>()
  readonly #budget: Budget
  readonly #stopping = new AbortController()
  readonly #over = new AbortController()

  /** @param now milliseconds that never go back; of no epoch */
  constructor(now: () => number = () => performance.now()) {
    this.#budget = new Budget(now)
  }

  /** @throws ApiError TOO_MANY_REQUESTS */
  spend(tenant: TenantId): void {
    const seconds = Math.ceil(this.#budget.waitMs(tenant, EXECS) / 1000)
    if (seconds > 0) {
      const sentence = `This tenant executed too much lately. Try again in ${seconds} s.`
      throw new ApiError('TOO_MANY_REQUESTS', sentence, { retry_after_s: seconds })
    }
    this.#budget.spend(tenant, EXECS)
  }

  /** Aborted when the agent ends. */
  get stopping(): AbortSignal {
    return this.#stopping.signal
  }

  /** Ends all sessions; resolves when the end of each is on record, or cannot be. */
  async stop(): Promise<void> {
    this.#stopping.abort()
    if (this.#open.size > 0) await once(this.#over.signal, 'abort')
  }

  /**
   * Counts one more until the function that it gives is called.
   * @throws ApiError EXEC_SESSIONS_FULL, SHUTTING_DOWN
   */
  begin(tenant: TenantId): () => void {
    if (this.#stopping.signal.aborted) {
      throw new ApiError('SHUTTING_DOWN', 'The agent is ending. Try again when it is back.')
    }
    const open = this.#open.get(tenant) ?? 0
    if (open >= EXEC_SESSIONS_MAX) throw full(`The tenant has ${EXEC_SESSIONS_MAX}`)
    this.#open.set(tenant, open + 1)
    let counted = true
    return () => {
      if (!counted) return
      counted = false
      const left = (this.#open.get(tenant) ?? 0) - 1
      if (left > 0) this.#open.set(tenant, left)
      else this.#open.delete(tenant)
      if (this.#stopping.signal.aborted && this.#open.size === 0) this.#over.abort()
    }
  }
}

const full = (who: string): ApiError =>
  new ApiError(
    'EXEC_SESSIONS_FULL',
    `${who} sessions of exec open already. End some, then try again.`,
  )

/** @throws ApiError POD_STATE_CONFLICT, EXEC_SESSIONS_FULL */
function streamOf(ports: ExecPorts, pod: ExecCall['pod']): PodStream {
  if (ports.pauses.has(pod)) {
    const sentence = `Pod ${pod} is paused; resume it first.`
    throw new ApiError('POD_STATE_CONFLICT', sentence, { pod, state: 'paused' })
  }
  const stream = ports.watch.stream(pod)
  if (stream === null || stream.closed) {
    const sentence = `Pod ${pod} is ending, or its connection is being made anew. Try again.`
    throw new ApiError('POD_STATE_CONFLICT', sentence, { pod, state: 'unknown' })
  }
  if (stream.sessions >= SESSIONS_MAX) throw full(`Pod ${pod} has ${SESSIONS_MAX}`)
  return stream
}

/**
 * Whether it may be; a refusal is on record.
 * @throws Refusal; AuditUnavailable
 */
export async function decide(
  ports: ExecPorts,
  call: ChangeCall,
  sought: Pick<ExecQuery, 'program' | 'errand' | 'user' | 'terminal'>,
): Promise<ExecDecision> {
  const { scope, caller } = call
  const { id, trust, suspended } = await ports.tenants.facts(scope)
  const outcome = decideExec(
    {
      principal: caller,
      tenant: { id, trust, suspended },
      pod: call.pod,
      ...sought,
    },
    ports.policies,
  )
  if (!(outcome instanceof Refusal)) return outcome
  await ports.audit.append({
    type: 'exec.refused',
    launch_id: call.pod,
    tenant: scope.tenant,
    actor: actorOf(caller, call.origin),
    refusal: refusalFacts(outcome),
  })
  throw outcome
}

/**
 * Everything that can be refused before anything is promised: the caller still gets an ordinary answer.
 * @throws ApiError POD_STATE_CONFLICT, EXEC_SESSIONS_FULL, TOO_MANY_REQUESTS; Refusal; AuditUnavailable
 */
export async function admitExec(ports: ExecPorts, call: ExecCall): Promise<ExecDecision> {
  await runningPod(ports, call)
  if (ports.audit.unavailable !== null) throw ports.audit.unavailable
  streamOf(ports, call.pod)
  ports.execs.spend(call.scope.tenant)
  const { program, errand, user, terminal } = soughtOf(call.wish)
  return await decide(ports, call, {
    program,
    errand: errand?.kind ?? '',
    user: user ?? '',
    terminal,
  })
}

/** A session that was asked for. */
export interface Executed {
  readonly stream: ExecStream
  /** Puts its end on record, once. */
  ended(end: ExecEnd, reason: EndReason): Promise<void>
}

/**
 * Puts it on record, and asks the VMM for it.
 * @throws ApiError as admitExec, when the pod changed meanwhile; AuditUnavailable
 */
export async function exec(
  ports: ExecPorts,
  call: ExecCall,
  decision: ExecDecision,
): Promise<Executed> {
  const { scope, pod } = call
  const { program, errand, user, terminal, envNames, ...sought } = soughtOf(call.wish)
  const request = sought.request()
  const execId = ports.clock.uuid()
  const intent = await ports.audit.append({
    type: 'exec.intent',
    launch_id: pod,
    tenant: scope.tenant,
    actor: actorOf(call.caller, call.origin),
    exec_id: execId,
    policy: {
      bundle: decision.policySetDigest,
      decision: 'allow',
      determining: decision.policyIds,
      reasons: decision.reasons,
    },
    request: request.digest,
    program: program.slice(0, PROGRAM_CHARACTERS_MAX),
    ...(errand === null ? {} : { errand: errandFacts(errand) }),
    user,
    terminal,
    env_names: envNames,
    deadline: deadlineIn(ports.clock, TICKET_MS),
  })
  const began = performance.now()
  const note = async (end: ExecEnd, reason: EndReason): Promise<void> => {
    await ports.watch.note({
      type: 'exec.ended',
      launch_id: pod,
      tenant: scope.tenant,
      exec_id: execId,
      intent_index: intent.index,
      exit: end.kind === 'exit' ? { how: end.how, value: end.value } : null,
      reason: reason ?? reasonOf(end),
      text: end.kind === 'exit' ? null : end.kind === 'error' ? end.text : end.why,
      duration_us: Math.round((performance.now() - began) * 1000),
    })
  }
  try {
    const ticket = await ports.audit.receipt(intent.index)
    const papers = { ticket, record: intent.bytes, request: request.bytes }
    return { stream: streamOf(ports, pod).exec(papers), ended: note }
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error)
    await note({ kind: 'error', code: 0, text }, null)
    throw error
  }
}

const reasonOf = (end: ExecEnd): 'exit' | 'not-started' | 'pod-ended' => {
  if (end.kind === 'exit') return 'exit'
  return end.kind === 'error' ? 'not-started' : 'pod-ended'
}
