/** A pod as the store holds it. */
import type { Canonical } from '../policy/canonical.ts'
import type { Charge, Digest, IsolationLevel, PodId, TenantId } from '../policy/index.ts'
import type { PodState } from './pod-state.ts'

/** Why a pod was refused or failed, as the caller was told. */
export interface PodProblem {
  readonly code: string
  readonly message: string
}

export interface Pod {
  readonly id: PodId
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
}

/** Bytes of canonical JSON that the exit and the facts of a pod may each take. */
export const POD_JSON_BYTES_MAX = 65_536
