/**
 * A process that is started anew when it ends by itself: signer and agent, on which no running pod
 * depends. It is given more time before each new start; one that does not stay up is given up, with
 * its own last words, because restarting for ever would hide that nothing works.
 */
import { setTimeout as delay } from 'node:timers/promises'
import type { Child } from './child.ts'

/** Before the first new start, the second, ...; after the last it is given up. */
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
  /** Resolves when it is started no more, with why. */
  readonly over: Promise<string>
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
  let pauses = [...pausesMs]

  /** Null: up again; otherwise why it is started no more. */
  async function again(before: string): Promise<string | null> {
    let why = before
    for (const pause of pauses) {
      pauses = pauses.slice(1)
      tell(`${why}; starting it again in ${pause / 1000} s`)
      await delay(pause, undefined, { signal }).catch(() => undefined)
      if (signal.aborted) return why
      try {
        child = await start(signal)
        return null
      } catch (error) {
        why = wordsOf(error)
      }
    }
    return `${why}\ncasemate-${name} does not stay up and is given up`
  }

  async function run(): Promise<string> {
    for (;;) {
      const since = performance.now()
      const how = await child.ended
      const why = `casemate-${name} ended by itself: ${how}`
      if (signal.aborted) return how
      if (performance.now() - since >= steadyMs) pauses = [...pausesMs]
      const failure = await again(why)
      if (failure !== null) return failure
      // It may have come up in the very moment in which it was to end.
      if (signal.aborted) await child.end()
      else tell(`${name} ready again, pid ${child.pid}`)
    }
  }

  const over = run()
  return {
    get pid() {
      return child.pid
    },
    said,
    over,
    end: async (first) => {
      stopping.abort()
      await child.end(first)
      await over
    },
  }
}
