/**
 * The life of a pod:
 *
 *     requested ──> launching ──> running ──> exited
 *         │             │            │
 *         ├──> refused  └──> failed <┘
 *         └──> failed
 *
 * requested: written before anything else. launching: quota reserved, the intent goes on record.
 * running: its process started. exited, failed, refused: final; the reservation is given back.
 */

export const POD_STATES = [
  'requested',
  'launching',
  'running',
  'exited',
  'failed',
  'refused',
] as const
export type PodState = (typeof POD_STATES)[number]

const NEXT: Readonly<Record<PodState, readonly PodState[]>> = {
  requested: ['launching', 'refused', 'failed'],
  launching: ['running', 'failed'],
  running: ['exited', 'failed'],
  exited: [],
  failed: [],
  refused: [],
}

/** Nothing follows a final state. */
export const isFinal = (state: PodState): boolean => NEXT[state].length === 0

/** The states from which `to` may follow. */
export const predecessorsOf = (to: PodState): readonly PodState[] =>
  POD_STATES.filter((from) => NEXT[from].includes(to))

const isPodState = (input: unknown): input is PodState =>
  POD_STATES.some((state) => state === input)

/** @throws TypeError */
export function parsePodState(input: unknown): PodState {
  if (isPodState(input)) return input
  throw new TypeError(`pod state must be one of ${POD_STATES.join(', ')}`)
}
