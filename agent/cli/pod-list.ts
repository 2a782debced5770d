/** Lists of pods, by filters, and the removal of those that ended long enough ago. */
import type { Command } from 'commander'
import { UsageError } from './arguments.ts'
import { type Client, ProblemError } from './client.ts'
import {
  type GlobalOptions,
  globalsOf,
  podPath,
  podsPath,
  several,
  show,
  withClient,
} from './context.ts'
import { field, items, say } from './output.ts'
import { span } from './span.ts'

export interface PsOptions {
  readonly all?: boolean
  readonly quiet?: boolean
  readonly filter?: readonly string[]
}

/** `level` is what the command line calls `isolation` elsewhere, too. */
const FILTERS: Readonly<Record<string, string>> = {
  state: 'state',
  name: 'name',
  image: 'image',
  level: 'isolation',
  label: 'label',
  health: 'health',
}

/** @throws UsageError */
export function listQuery({ all, filter = [] }: PsOptions): URLSearchParams {
  const query = new URLSearchParams({ limit: '1000' })
  for (const one of filter) {
    const [name = '', ...value] = one.split('=')
    const member = FILTERS[name]
    if (member === undefined || value.length === 0) {
      const known = Object.keys(FILTERS).join(', ')
      throw new UsageError(`--filter is one of ${known}, with =value: ${one}`)
    }
    query.append(member, value.join('='))
  }
  // Who asks for a state means it, ended or not.
  if (all !== true && !query.has('state')) query.set('ended', 'false')
  return query
}

/** All pages of a list. */
export async function listAll(
  client: Client,
  options: GlobalOptions,
  query: URLSearchParams,
): Promise<{ readonly pods: readonly unknown[]; readonly next: null }> {
  const pods: unknown[] = []
  for (;;) {
    const path = `${podsPath(options)}?${query.toString()}`
    // oxlint-disable-next-line no-await-in-loop -- each page names the next
    const page = await client.json({ method: 'GET', path })
    pods.push(...items(page, 'pods'))
    const next = field(page, 'next')
    if (next === '') return { pods, next: null }
    query.set('cursor', next)
  }
}

/** Whether it was there to be removed; somebody may have been quicker. */
async function removed(client: Client, options: GlobalOptions, id: string): Promise<boolean> {
  try {
    await client.json({ method: 'DELETE', path: podPath(options, id) })
    return true
  } catch (error) {
    if (error instanceof ProblemError && error.code === 'NOT_FOUND') return false
    throw error
  }
}

interface PruneOptions {
  readonly olderThan: number
  readonly filter?: readonly string[]
}

async function prune(client: Client, options: GlobalOptions, given: PruneOptions) {
  const query = listQuery({ all: true, ...(given.filter && { filter: given.filter }) })
  const { pods } = await listAll(client, options, query)
  const until = Date.now() - given.olderThan
  const gone: string[] = []
  for (const pod of pods) {
    const isOver = ['exited', 'failed', 'refused'].includes(field(pod, 'state'))
    if (!isOver || Date.parse(field(pod, 'ended')) > until) continue
    const id = field(pod, 'id')
    // oxlint-disable-next-line no-await-in-loop -- stops at the first that cannot be removed
    if (await removed(client, options, id)) gone.push(id)
  }
  return { removed: gone }
}

export function addPrune(program: Command): void {
  program
    .command('prune')
    .description('remove pods that have ended, and their logs; their records stay')
    .option('--older-than <span>', 'that ended so long ago at least', span, 86_400_000)
    .option('-f, --filter <what=value>', 'as of ps; repeatable', several)
    .action(async (given: PruneOptions, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const done = await prune(client, options, given)
        show(options, done, () => {
          process.stdout.write(done.removed.map((id) => `${id}\n`).join(''))
          say(`${done.removed.length} removed`)
        })
      })
    })
}
