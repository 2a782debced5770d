/** A pod's log on standard output and error, as it comes. */
import { once } from 'node:events'
import type { Writable } from 'node:stream'
import type { Client } from './client.ts'
import { type GlobalOptions, podPath } from './context.ts'
import { say } from './output.ts'

const LINE_CHARACTERS_MAX = 1 << 20

export interface LogsCall {
  readonly pod: string
  readonly follow: boolean
  readonly since: number
  /** Lines of guest console and VMM too, on standard error. */
  readonly all: boolean
  readonly signal?: AbortSignal
}

async function* linesOf(stream: AsyncIterable<Buffer>): AsyncGenerator<string> {
  let held = ''
  for await (const chunk of stream) {
    const found = (held + chunk.toString('latin1')).split('\n') // ASCII: data is base64
    held = found.pop() ?? ''
    if (held.length > LINE_CHARACTERS_MAX) throw new Error('a line of the log is too long')
    yield* found
  }
}

async function write(to: Writable, bytes: Buffer): Promise<void> {
  if (!to.write(bytes)) await once(to, 'drain')
}

async function printRecord(record: unknown, all: boolean): Promise<void> {
  if (typeof record !== 'object' || record === null) return
  const stream: unknown = Reflect.get(record, 'stream')
  const data: unknown = Reflect.get(record, 'data')
  if (typeof data !== 'string') {
    say('casemate: the log was written faster than it was read; the oldest part is gone')
    return
  }
  const bytes = Buffer.from(data, 'base64')
  if (stream === 'stdout') await write(process.stdout, bytes)
  else if (stream === 'stderr' || all) await write(process.stderr, bytes)
}

/** Resolves at the end of the log; with `follow`, at the end of the pod. */
export async function printLogs(
  client: Client,
  options: GlobalOptions,
  call: LogsCall,
): Promise<void> {
  const query = `follow=${String(call.follow)}&since=${call.since}`
  const path = `${podPath(options, call.pod)}/logs?${query}`
  const signal = call.signal === undefined ? {} : { signal: call.signal }
  const stream = await client.stream({ method: 'GET', path, ...signal })
  for await (const line of linesOf(stream)) {
    const record: unknown = JSON.parse(line)
    await printRecord(record, call.all)
  }
}
