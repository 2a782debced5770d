/** A pod as the store holds it. */
import type { Canonical, CanonicalObject } from '../policy/canonical.ts'
import type {
  Charge,
  Digest,
  IsolationLevel,
  Notes,
  PodId,
  PodName,
  RestartRule,
  TenantId,
} from '../policy/index.ts'
import { isFinal, type PodState } from './pod-state.ts'

/** Why a pod was refused or failed, as the caller was told. */
export interface PodProblem {
  readonly code: string
  readonly message: string
  /** How far its launch had come; absent: nobody noted it. */
  readonly stage?: string
  /** What the problem document said beside the sentence. */
  readonly facts?: CanonicalObject
}

/** The rule by which a pod is started again, and how far it is with that. */
export interface Restart {
  readonly rule: RestartRule
  /** Restarts in a row that led to this start. */
  readonly streak: number
  /** When the next start is due, ms since 1970; null: none is. */
  readonly dueMs: number | null
}

/** One start of a pod: a launch with its own id, record, log and quota (docs/decisions/0027). */
export interface Pod {
  /** The launch's. */
  readonly id: PodId
  /** Id of the pod's first start, which is the pod's for people. */
  readonly origin: PodId
  /** 0: the first start. */
  readonly attempt: number
  /** null: it has none. */
  readonly name: PodName | null
  readonly labels: Notes
  readonly annotations: Notes
  /** null: it is not started again. */
  readonly restart: Restart | null
  /** Somebody told the pod to stop: no rule starts it again. */
  readonly stopAsked: boolean
  readonly tenant: TenantId
  readonly state: PodState
  /** Who asked for it: a token's subject, or `uid:<n>` for an operator. */
  readonly identity: string
  readonly imageReference: string
  /** null until the reference was resolved. */
  readonly imageDigest: Digest | null
  /** null until the launch was decided. */
  readonly level: IsolationLevel | null
  readonly specDigest: Digest | null
  /** Index of its launch.intent record; null until it is on record. */
  readonly recordIndex: number | null
  /** What it holds of the quotas now; null before the reservation and after its release. */
  readonly charge: Charge | null
  readonly createdMs: number
  readonly startedMs: number | null
  readonly endedMs: number | null
  /** How it ended, as spawn reports it (docs/formats.md section 6). */
  readonly exit: Canonical
  readonly problem: PodProblem | null
  /** Facts of the launch, for `inspect`. */
  readonly facts: Canonical
  /** It was told to stop, and that is on record. */
  readonly stopRecorded: boolean
}

/** What may be written of a pod as its launch goes on; an absent member stays as it is. */
export interface PodChanges {
  readonly imageDigest?: Digest
  readonly level?: IsolationLevel
  readonly specDigest?: Digest
  readonly recordIndex?: number
  readonly exit?: Canonical
  readonly problem?: PodProblem
  readonly facts?: Canonical
  /** Never taken back. */
  readonly stopRecorded?: true
  /** With a final state: when to start again. Of no effect on a pod that was told to stop. */
  readonly restart?: { readonly dueMs: number; readonly streak: number }
}

/** Whether the pod has ended for good. */
export const isOver = ({ state, restart }: Pick<Pod, 'state' | 'restart'>): boolean =>
  isFinal(state) && (restart === null || restart.dueMs === null)

/** Bytes of canonical JSON that the exit and the facts of a pod may each take. */
export const POD_JSON_BYTES_MAX = 65_536
