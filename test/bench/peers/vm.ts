/** A virtual machine of either program, run by a small C program that takes the times. */
import { type ChildProcess, type StdioOptions, spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'

const NS_PER_MS = 1_000_000
/**
 * A quiet guest uses some hundredths of a core in software KVM, for its timers; one that boots uses more even where it
 * shares the cores. A tick is 10 ms (sysconf _SC_CLK_TCK is 100 on x86).
 */
const LOOK_MS = 1000
const QUIET_TICKS = 6
/** Looks in a row that must agree. */
const CALM = 3
const LOOKS_MAX = 600
/** Memory that grows by less than this share in a look is taken to grow no more. */
const SETTLED = 0.002
/** Fields 14 and 15 of proc_pid_stat(5), counted behind the name in parentheses. */
const UTIME = 11

/** How a runner's line begins, and the number that its last word is. */
export interface Line {
  readonly word: string
  readonly first: number
  readonly last: number
  readonly text: string
}

/** Lines are `pid N`, `said KIND NS TEXT`, `loaded NS`, `ended STATUS NS`. @throws RangeError for any other */
export function lineOf(line: string): Line {
  const [, word = '', first = '', second, text = ''] =
    /^(pid|said|loaded|ended) (\d+)(?: (\d+))?(?: (.*))?$/u.exec(line) ?? []
  if (word === '') throw new RangeError(`a runner never says: ${line}`)
  return { word, first: Number(first), last: Number(second ?? first), text }
}

/** Clock ticks of all threads of a process so far. @throws RangeError for what is no such line */
export function ticksOf(stat: string): number {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = Number(fields[UTIME]) + Number(fields[UTIME + 1])
  if (!Number.isFinite(ticks)) throw new RangeError(`no line of /proc/PID/stat: ${stat}`)
  return ticks
}

export class Vm {
  readonly pid: number
  /** Milliseconds from execve to the end of the process, however it ended. */
  readonly ended: Promise<number>
  /** Why it ended: the failure a VMM of ours reported, the other's exit status. Empty before. */
  why = ''
  readonly #child: ChildProcess

  constructor(child: ChildProcess, pid: number, lines: AsyncIterator<string>) {
    this.#child = child
    this.pid = pid
    this.ended = this.#follow(lines)
    this.ended.catch(() => undefined) // whoever waits for it hears of it
  }

  async #follow(lines: AsyncIterator<string>): Promise<number> {
    let how = 'status'
    for (;;) {
      const { value, done } = await lines.next()
      if (done === true) throw new Error(`the virtual machine was killed; ${this.why}`)
      const { word, first, last, text } = lineOf(value)
      if (word === 'said' && text !== '') this.why = text
      if (word === 'loaded') how = 'restored, status'
      if (word !== 'ended') continue
      if (this.why === '') this.why = `${how} ${first}`
      return last / NS_PER_MS
    }
  }

  /** Ends it, and waits for that. */
  async kill(): Promise<void> {
    if (this.#child.exitCode === null) this.#child.kill('SIGTERM')
    await this.ended.catch(() => undefined)
  }
}

/** Starts a runner and waits until it has started its program. */
export async function startVm(
  runner: string,
  args: readonly string[],
  stdio: StdioOptions = ['ignore', 'pipe', 'inherit'],
): Promise<Vm> {
  const child = spawn(runner, args, { stdio, env: {} })
  if (child.stdout === null) throw new Error('the runner has no standard output')
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const { value, done } = await lines.next()
  if (done === true) throw new Error(`${runner} started nothing`)
  return new Vm(child, lineOf(value).first, lines)
}

interface Process {
  readonly pid: number
}

/** Looks until `isCalm` was true three times in a row. @throws when that never happens */
async function until(isCalm: () => boolean): Promise<void> {
  let calm = 0
  for (let looks = 0; calm < CALM; looks += 1) {
    if (looks === LOOKS_MAX) throw new Error('the guests do not come to rest')
    await pause(LOOK_MS)
    calm = isCalm() ? calm + 1 : 0
  }
}

/** Waits until the guests have nothing left to do. @throws when one of them has ended */
export function quiet(processes: readonly Process[]): Promise<void> {
  const look = (): readonly number[] =>
    processes.map(({ pid }) => ticksOf(readFileSync(`/proc/${pid}/stat`, 'latin1')))
  let before = look()
  return until(() => {
    const now = look()
    const isCalm = now.every((ticks, at) => ticks - (before[at] ?? 0) < QUIET_TICKS)
    before = now
    return isCalm
  })
}

/** Waits until what `look` measures grows no more. */
export function settled(look: () => number): Promise<void> {
  let before = look()
  return until(() => {
    const now = look()
    const isCalm = Math.abs(now - before) <= before * SETTLED
    before = now
    return isCalm
  })
}
