/**
 * Pods come into being here, with the idempotency key of their request: one transaction writes both,
 * so a request that is sent again finds either its answer, or that the first one is still on its way,
 * and never starts a second pod.
 */
import type { Transaction } from 'kysely'
import type { Canonical } from '../../policy/canonical.ts'
import type {
  Branded,
  Digest,
  Notes,
  PodId,
  PodName,
  RestartRule,
  TenantId,
} from '../../policy/index.ts'
import {
  BadNoun,
  parseAnnotations,
  parseLabels,
  parsePodId,
  parseTenantId,
} from '../../policy/index.ts'
import { TenantsError } from '../errors.ts'
import type { Pod } from '../pod.ts'
import type { TenantScope } from '../scope.ts'
import { refuseTaken } from './names.ts'
import { keepRequest } from './restarts.ts'
import { podOf } from './rows.ts'
import type { IdempotencyRow, Store, Tables } from './tables.ts'

/** How long an answer is kept for a request that is sent again. */
export const IDEMPOTENCY_MS = 86_400_000
export const RESPONSE_BYTES_MAX = 262_144

/** The Idempotency-Key header (draft-ietf-httpapi-idempotency-key-header): 1 to 128 visible ASCII. */
export type IdempotencyKey = Branded<string, 'IdempotencyKey'>
const isIdempotencyKey = (input: unknown): input is IdempotencyKey =>
  typeof input === 'string' && /^[\x21-\x7e]{1,128}$/u.test(input)

/** @throws BadNoun */
export function parseIdempotencyKey(input: unknown): IdempotencyKey {
  if (isIdempotencyKey(input)) return input
  throw new BadNoun('Idempotency-Key', 'must be 1 to 128 visible ASCII characters')
}

export interface PodAbout {
  readonly name: PodName | null
  readonly labels: Notes
  readonly annotations: Notes
}

export interface NewPod {
  readonly id: PodId
  readonly imageReference: string
  /** null: the caller sent no key, and may start two pods by sending twice. */
  readonly request: { readonly key: IdempotencyKey; readonly bodyDigest: Digest } | null
  /** What people call it and note about it; left out: nothing. */
  readonly about?: PodAbout
  /** Start it again by this rule, with this request; left out: never. */
  readonly restart?: { readonly rule: RestartRule; readonly request: Canonical } | null
}

/** A recorded answer. */
export interface Answer {
  readonly status: number
  readonly body: string
}

export type Created =
  | { readonly kind: 'created'; readonly pod: Pod }
  /** The request was answered before; this is that answer. */
  | { readonly kind: 'replay'; readonly answer: Answer }

/**
 * Writes a pod in state `requested`.
 * @throws TenantsError IDEMPOTENCY_KEY_REUSED, IDEMPOTENCY_IN_FLIGHT, POD_EXISTS, POD_NAME_TAKEN
 */
export async function createPod(
  store: Store,
  scope: TenantScope,
  pod: NewPod,
  nowMs: number,
): Promise<Created> {
  return await store.transaction().execute(async (transaction) => {
    if (pod.request !== null) {
      const earlier = await claimKey(transaction, scope, pod, nowMs)
      if (earlier !== null) return answerFrom(earlier, pod.request.bodyDigest)
    }
    if (pod.about?.name) await refuseTaken(transaction, scope, pod.about.name)
    const row = await transaction
      .insertInto('pods')
      .values(rowOf(scope, pod, nowMs))
      .onConflict((clash) => clash.doNothing())
      .returningAll()
      .executeTakeFirst()
    if (row === undefined) throw new TenantsError('POD_EXISTS', 'The pod id is taken.', {})
    if (pod.restart) await keepRequest(transaction, scope, pod.id, pod.restart.request)
    return { kind: 'created', pod: podOf(row) }
  })
}

const NOTHING: PodAbout = { name: null, labels: parseLabels({}), annotations: parseAnnotations({}) }

const rowOf = (scope: TenantScope, pod: NewPod, nowMs: number) => ({
  id: pod.id,
  tenant: scope.tenant,
  state: 'requested',
  identity: scope.identity,
  image_reference: pod.imageReference,
  reserved: 0,
  vcpus: 0,
  memory_mib: 0,
  created_ms: nowMs,
  stop_recorded: 0,
  origin: pod.id,
  attempt: 0,
  restart_rule: pod.restart?.rule ?? null,
  restart_streak: 0,
  stop_asked: 0,
  ...aboutColumns(pod.about ?? NOTHING),
})

const aboutColumns = ({ name, labels, annotations }: PodAbout) => ({
  name,
  labels: JSON.stringify(labels),
  annotations: JSON.stringify(annotations),
})

/** Takes the key for this pod, or gives the row of who has it. */
async function claimKey(
  transaction: Transaction<Tables>,
  scope: TenantScope,
  pod: NewPod,
  nowMs: number,
): Promise<IdempotencyRow | null> {
  if (pod.request === null) return null
  await transaction.deleteFrom('idempotency').where('expires_ms', '<=', nowMs).execute()
  const taken = await transaction
    .insertInto('idempotency')
    .values({
      tenant: scope.tenant,
      identity: scope.identity,
      key: pod.request.key,
      body_digest: pod.request.bodyDigest,
      pod: pod.id,
      expires_ms: nowMs + IDEMPOTENCY_MS,
    })
    .onConflict((clash) => clash.doNothing())
    .returning('key')
    .executeTakeFirst()
  if (taken !== undefined) return null
  return await transaction
    .selectFrom('idempotency')
    .selectAll()
    .where('tenant', '=', scope.tenant)
    .where('identity', '=', scope.identity)
    .where('key', '=', pod.request.key)
    .executeTakeFirstOrThrow()
}

function answerFrom(earlier: IdempotencyRow, bodyDigest: Digest): Created {
  if (earlier.body_digest !== bodyDigest) {
    throw new TenantsError(
      'IDEMPOTENCY_KEY_REUSED',
      'This Idempotency-Key was used with another request. Use a new key for a new request.',
      {},
    )
  }
  if (earlier.status === null || earlier.response === null) {
    throw new TenantsError(
      'IDEMPOTENCY_IN_FLIGHT',
      `The first request with this Idempotency-Key is still being worked on. Ask for pod ${earlier.pod}, or try again.`,
      { pod: earlier.pod },
    )
  }
  return { kind: 'replay', answer: { status: earlier.status, body: earlier.response } }
}

/** Keeps the answer of a pod's request; the first answer stays. Nothing happens without a key. */
export async function answerRequest(
  store: Store,
  scope: TenantScope,
  pod: PodId,
  answer: Answer,
): Promise<void> {
  if (Buffer.byteLength(answer.body) > RESPONSE_BYTES_MAX) {
    throw new RangeError(`an answer that is kept is limited to ${RESPONSE_BYTES_MAX} bytes`)
  }
  await store
    .updateTable('idempotency')
    .set({ status: answer.status, response: answer.body })
    .where('tenant', '=', scope.tenant)
    .where('pod', '=', pod)
    .where('status', 'is', null)
    .execute()
}

/** Gives the key of a request without an answer back; nothing happens without a key. */
export async function releaseRequest(store: Store, scope: TenantScope, pod: PodId): Promise<void> {
  await store
    .deleteFrom('idempotency')
    .where('tenant', '=', scope.tenant)
    .where('pod', '=', pod)
    .where('status', 'is', null)
    .execute()
}

/** Requests without an answer: after a crash, reconcile answers them from what became of the pod. */
export async function selectUnanswered(
  store: Store,
): Promise<readonly { readonly tenant: TenantId; readonly pod: PodId }[]> {
  const rows = await store
    .selectFrom('idempotency')
    .select(['tenant', 'pod'])
    .where('status', 'is', null)
    .execute()
  return rows.map((row) => ({ tenant: parseTenantId(row.tenant), pod: parsePodId(row.pod) }))
}
