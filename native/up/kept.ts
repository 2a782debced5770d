/**
 * A process that is started anew when it ends by itself: signer and agent, on which no running pod
 * depends. It is given more time before each new start, up to a last pause that is then repeated: it is
 * never given up, because that would end the pods, and never silent, because each end is told with
 * the process's own last words.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Child } from './child.ts'

/** Before the first new start, the second, ...; the last one before all that follow. */
const PAUSES_MS: readonly number[] = [1000, 2000, 4000, 8000, 16_000]
/** Who was up for so long has recovered: what comes after counts from the beginning. */
const STEADY_MS = 60_000

export interface KeepPlan {
  readonly name: Child['name']
  /** Aborted: what is being started is to end. @throws when it does not come up */
  readonly start: (signal: AbortSignal) => Promise<Child>
  /** Called with each end and each new start, for people. */
  readonly tell: (line: string) => void
  readonly pausesMs?: readonly number[]
  readonly steadyMs?: number
}

export interface Kept {
  /** Of the process as it runs now. */
  readonly pid: number
  /** What the first of them said when it served. */
  readonly said: string
  /** Ends it for good: the signal, and KILL when that takes too long. */
  end(signal?: NodeJS.Signals): Promise<void>
}

const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** @throws as the first start does: what never came up is not tried again */
export async function keep(plan: KeepPlan): Promise<Kept> {
  const { name, start, tell, pausesMs = PAUSES_MS, steadyMs = STEADY_MS } = plan
  const stopping = new AbortController()
  const { signal } = stopping
  let child = await start(signal)
  const { said } = child
  /** New starts since it was up for long. */
  let tries = 0

  /** Comes back when it is up again, or is to be no more. */
  async function again(before: string): Promise<void> {
    let why = before
    while (!signal.aborted) {
      const pause = pausesMs[Math.min(tries, pausesMs.length - 1)] ?? 0
      tries += 1
      tell(`${why}; starting it again in ${pause / 1000} s`)
      await delay(pause, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) return
      try {
        child = await start(signal)
        return
      } catch (error) {
        why = wordsOf(error)
      }
    }
  }

  async function run(): Promise<void> {
    while (!signal.aborted) {
      const since = performance.now()
      const how = await child.ended
      if (signal.aborted) return
      if (performance.now() - since >= steadyMs) tries = 0
      await again(`casemate-${name} ended by itself: ${how}`)
      if (!signal.aborted) tell(`${name} ready again, pid ${child.pid}`)
    }
    // It may have come up in the very moment in which it was to end.
    await child.end()
  }

  const over = run()
  return {
    get pid() {
      return child.pid
    },
    said,
    end: async (first) => {
      stopping.abort()
      await child.end(first)
      await over
    },
  }
}
