/**
 * HEALTH of the pod stream (docs/formats.md section 7): what a guest says of its app's health check, with the VMM's time.
 * The VMM may have been taken over by its guest: nothing here is believed further than its shape.
 */

const HEALTH_OUTPUT_BYTES_MAX = 4096
const HEAD_BYTES = 16
export const HEALTH_PAYLOAD_MAX: number = HEAD_BYTES + HEALTH_OUTPUT_BYTES_MAX

const STATES = ['starting', 'healthy', 'unhealthy'] as const
export type HealthState = (typeof STATES)[number]

/** How the last check ended; only code 0 is right. */
export type HealthAnswer =
  | { readonly how: 'code' | 'signal'; readonly value: number }
  | { readonly how: 'timeout' | 'not-asked'; readonly value: null }

export interface PodHealth {
  readonly state: HealthState
  readonly answer: HealthAnswer
  /** Wrong answers in a row. */
  readonly streak: number
  /** When the state began, ms since 1970. */
  readonly sinceMs: number
  /** The end of what the last check wrote: printable text and line ends. */
  readonly output: string
}

function answerOf(how: number, value: number): HealthAnswer | null {
  if (how === 0) return { how: 'code', value }
  if (how === 1 && value >= 1 && value <= 64) return { how: 'signal', value }
  if (value !== 0) return null
  if (how === 2) return { how: 'timeout', value: null }
  return how === 3 ? { how: 'not-asked', value: null } : null
}

/** What a terminal would take for more than text becomes `?`; so does what is no UTF-8. */
const textOf = (bytes: Buffer): string =>
  bytes.toString('utf8').replace(/(?![\n\t])[\p{Cc}\p{Cf}\p{Co}\p{Cs}\p{Zl}\p{Zp}\uFFFD]/gu, '?')

/** null: the payload is none. */
export function readHealth(payload: Buffer): PodHealth | null {
  if (payload.length < HEAD_BYTES || payload.length > HEALTH_PAYLOAD_MAX) return null
  const state = STATES[payload.readUInt8(0)]
  const answer = answerOf(payload.readUInt8(1), payload.readUInt8(2))
  const sinceMs = Number(payload.readBigUInt64LE(8) / 1_000_000n)
  const isNone = state === undefined || answer === null || payload.readUInt8(3) !== 0
  if (isNone) return null
  return {
    state,
    answer,
    streak: payload.readUInt32LE(4),
    sinceMs,
    output: textOf(payload.subarray(HEAD_BYTES)),
  }
}

/** More than any VMM passes on (native/wire/src/health.rs), so only one that was taken over comes to its end. */
const WORDS_IN_A_ROW = 64
const MS_EACH = 125

/** How many words on health a stream may still bring. */
export class HealthAllowance {
  #left = WORDS_IN_A_ROW
  #filledMs: number | null = null

  /** False: one too many. @param nowMs on a clock that never goes back */
  spend(nowMs: number): boolean {
    const since = nowMs - (this.#filledMs ?? nowMs)
    this.#left = Math.min(WORDS_IN_A_ROW, this.#left + since / MS_EACH)
    this.#filledMs = nowMs
    if (this.#left < 1) return false
    this.#left -= 1
    return true
  }
}
