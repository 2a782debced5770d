/** `casemate events`: what happened to a tenant's pods or on the host, followed over restarts of the agent. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Client } from './client.ts'
import { type GlobalOptions, globalsOf, several, tenantOf, withClient } from './context.ts'
import { AGAIN_MAX, AGAIN_MS, linesOf, passing } from './going-on.ts'
import { field, plain, say } from './output.ts'

interface EventsOptions extends GlobalOptions {
  readonly follow?: boolean
  readonly since?: string
  readonly type?: readonly string[]
  readonly pod?: string
  readonly label?: readonly string[]
  readonly all?: boolean
}

const pathOf = (options: EventsOptions): string =>
  options.all === true
    ? '/v1/events'
    : `/v1/tenants/${encodeURIComponent(tenantOf(options))}/events`

/** @param next of the last event that was printed; null: none was */
function queryOf(options: EventsOptions, next: string | null): URLSearchParams {
  const query = new URLSearchParams()
  const since = next ?? options.since
  // Digits alone are a place, everything else a time.
  if (since !== undefined) query.set(/^\d+$/u.test(since) ? 'since' : 'from', since)
  for (const type of options.type ?? []) query.append('type', type)
  for (const label of options.label ?? []) query.append('label', label)
  if (options.pod !== undefined) query.set('pod', options.pod)
  query.set('follow', String(options.follow === true))
  return query
}

/** Facts that are there, in one line. */
function wordsOf(facts: unknown): string {
  if (typeof facts !== 'object' || facts === null) return ''
  return Object.entries(facts)
    .filter(([, value]) => value !== null && value !== '')
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(' ')
}

function print(options: EventsOptions, line: string): string {
  const event: unknown = JSON.parse(line)
  const gap = field(event, 'gap', 'to')
  if (options.output === 'json') process.stdout.write(`${line}\n`)
  else if (gap !== '') say('casemate: events were read too slowly; some are not kept any more')
  else {
    const facts: unknown = Reflect.get(Object(event), 'facts')
    const who = field(event, 'name') || field(event, 'pod')
    const tenant = options.all === true ? [field(event, 'tenant') || '-'] : []
    const words = [field(event, 'time'), field(event, 'type'), ...tenant, who, wordsOf(facts)]
    process.stdout.write(`${plain(words.filter((word) => word !== '').join(' '))}\n`)
  }
  return gap === '' ? field(event, 'next') : gap
}

async function printEvents(client: Client, options: EventsOptions): Promise<void> {
  let next: string | null = null
  let left = AGAIN_MAX
  for (;;) {
    const before: string | null = next
    try {
      const path = `${pathOf(options)}?${queryOf(options, next).toString()}`
      // oxlint-disable-next-line no-await-in-loop -- one answer after the other
      const stream = await client.stream({ method: 'GET', path })
      for await (const line of linesOf(stream)) next = print(options, line)
      if (options.follow !== true) return
    } catch (error) {
      if (options.follow !== true || left === 0) throw error
      passing(error)
    }
    left = next === before ? left - 1 : AGAIN_MAX
    // oxlint-disable-next-line no-await-in-loop
    await delay(AGAIN_MS)
  }
}

export function addEvents(program: Command): void {
  program
    .command('events')
    .description('what happened to a tenant’s pods, the oldest that is kept first')
    .option('-f, --follow', 'go on with what happens, also over a restart of the agent')
    .option('--since <time>', 'RFC 3339, or ago as 10m, 1h30m; digits: from an event’s `next` on')
    .option('--type <type>', 'as launch.exited, or exec for all that begin so; repeatable', several)
    .option('--pod <pod>', 'of this pod alone')
    .option('-l, --label <KEY[=value]>', 'of pods that have it; repeatable', several)
    .option('-a, --all', 'of the host and all tenants; for operators')
    .action(async (_options, command: Command) => {
      const options: EventsOptions = { ...globalsOf(command), ...command.opts<EventsOptions>() }
      await withClient(options, (client) => printEvents(client, options))
    })
}
