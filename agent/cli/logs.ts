/** A pod's log on standard output and error, as it comes; followed over restarts of the agent. */
import { once } from 'node:events'
import type { Writable } from 'node:stream'
import { setTimeout as delay } from 'node:timers/promises'
import type { Client } from './client.ts'
import { type GlobalOptions, podPath } from './context.ts'
import { AGAIN_MAX, AGAIN_MS, linesOf, passing } from './going-on.ts'
import { field, say } from './output.ts'

export interface LogsCall {
  readonly pod: string
  readonly follow: boolean
  /** More of the query, as the API has it. */
  readonly query: Readonly<Record<string, string>>
  /** Lines of guest console and VMM too, on standard error. */
  readonly all: boolean
  /** When each line was written, before it. */
  readonly timestamps: boolean
}

/** Of the last record that was printed. */
interface Place {
  readonly attempt: string
  readonly since: string
}

/** Puts a time before each line, also where a line comes in several records. */
class Stamps {
  readonly #within = new Set<string>()

  stamp(stream: string, time: string, bytes: Buffer): Buffer {
    if (bytes.length === 0) return bytes
    const lines = bytes.toString('latin1').split(/(?<=\n)/u)
    const whole = lines.map((line, index) =>
      index === 0 && this.#within.has(stream) ? line : `${time} ${line}`,
    )
    if (bytes.at(-1) === 10) this.#within.delete(stream)
    else this.#within.add(stream)
    return Buffer.from(whole.join(''), 'latin1')
  }
}

class Printer {
  readonly #all: boolean
  readonly #stamps: Stamps | null
  /** null: nothing yet. */
  place: Place | null = null

  constructor({ all, timestamps }: LogsCall) {
    this.#all = all
    this.#stamps = timestamps ? new Stamps() : null
  }

  async print(record: unknown): Promise<void> {
    const [stream, gap] = [field(record, 'stream'), field(record, 'gap', 'to')]
    this.place = {
      attempt: field(record, 'attempt'),
      since: gap === '' ? field(record, 'next') : gap,
    }
    if (gap !== '') {
      say('casemate: the log was written faster than it was read; the oldest part is gone')
      return
    }
    const raw = Buffer.from(field(record, 'data'), 'base64')
    const bytes = this.#stamps?.stamp(stream, field(record, 'time'), raw) ?? raw
    if (stream === 'stdout') await write(process.stdout, bytes)
    else if (stream === 'stderr' || this.#all) await write(process.stderr, bytes)
  }
}

async function write(to: Writable, bytes: Buffer): Promise<void> {
  if (!to.write(bytes)) await once(to, 'drain')
}

/** Prints what comes, until the answer ends. @throws when it ends before its time */
async function printOnce(
  client: Client,
  path: string,
  printer: Printer,
  { follow, query }: LogsCall,
): Promise<void> {
  // What was printed is not asked for again, nor are the last lines counted anew from there.
  const { tail: _counted, ...rest } = query
  const where = printer.place === null ? query : { ...rest, ...printer.place }
  const asked = new URLSearchParams({ ...where, follow: String(follow) })
  const stream = await client.stream({ method: 'GET', path: `${path}/logs?${asked.toString()}` })
  for await (const line of linesOf(stream)) await printer.print(JSON.parse(line))
}

/** Whether another start of the pod may still write; an agent that ends lets go of its answers. */
async function isOver(client: Client, path: string): Promise<boolean> {
  const found = await client.json({ method: 'GET', path })
  return ['exited', 'failed', 'refused'].includes(field(found, 'state'))
}

/** Resolves at the end of the log; with `follow`, at the end of the pod, whichever agent that is with. */
export async function printLogs(
  client: Client,
  options: GlobalOptions,
  call: LogsCall,
): Promise<void> {
  const path = podPath(options, call.pod)
  const printer = new Printer(call)
  if (!call.follow) {
    await printOnce(client, path, printer, call)
    return
  }
  let left = AGAIN_MAX
  for (;;) {
    const before = printer.place
    try {
      // oxlint-disable-next-line no-await-in-loop -- one answer after the other
      await printOnce(client, path, printer, call)
      // oxlint-disable-next-line no-await-in-loop
      if (await isOver(client, path)) return
    } catch (error) {
      if (left === 0) throw error
      passing(error)
    }
    left = printer.place === before ? left - 1 : AGAIN_MAX
    // oxlint-disable-next-line no-await-in-loop
    await delay(AGAIN_MS)
  }
}
