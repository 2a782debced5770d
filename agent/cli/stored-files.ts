/** `casemate config` and `casemate secret`: files that a tenant keeps here for its pods. */
import { readFileSync } from 'node:fs'
import type { Command } from 'commander'
import { UsageError } from './arguments.ts'
import { type GlobalOptions, globalsOf, show, tenantOf, withClient } from './context.ts'
import { field, items, printDetails, printTable } from './output.ts'

const STANDARD_INPUT = 0

/** Bytes of a file that an option names, `-` for standard input. @throws UsageError */
export function bytesOfFile(option: string, file: string): Buffer {
  try {
    return readFileSync(file === '-' ? STANDARD_INPUT : file)
  } catch (cause) {
    const code: unknown = cause instanceof Error ? Reflect.get(cause, 'code') : undefined
    throw new UsageError(`${option} ${file} cannot be read: ${String(code ?? cause)}`, { cause })
  }
}

type Kind = 'config' | 'secret'

const pathOf = (options: GlobalOptions, kind: Kind, name?: string): string => {
  const all = `/v1/tenants/${encodeURIComponent(tenantOf(options))}/${kind}s`
  return name === undefined ? all : `${all}/${encodeURIComponent(name)}`
}

const COLUMNS = ['name', 'size', 'version', 'created', 'by'] as const
const table = (found: unknown): void => {
  const rows = items(found, 'files').map((file) => COLUMNS.map((column) => field(file, column)))
  printTable(['NAME', 'BYTES', 'VERSION', 'CREATED', 'BY'], rows)
}

function addKind(program: Command, kind: Kind): void {
  const command = program.command(kind).description(`${kind}s that pods of a tenant may get`)
  command
    .command('create')
    .description(`keep a ${kind}, encrypted; there is none of that name yet`)
    .argument('<name>')
    .requiredOption('--file <file>', 'its content; - reads standard input')
    .action(async (name: string, given: { readonly file: string }, own: Command) => {
      const options = globalsOf(own)
      const content = bytesOfFile('--file', given.file).toString('base64')
      await withClient(options, async (client) => {
        const call = {
          method: 'POST',
          path: pathOf(options, kind),
          body: { name, content },
        } as const
        const stored = await client.json(call)
        show(options, stored, () => process.stdout.write(`${field(stored, 'version')}\n`))
      })
    })
  command
    .command('list')
    .description(`all ${kind}s of the tenant`)
    .action(async (_options: unknown, own: Command) => {
      const options = globalsOf(own)
      await withClient(options, async (client) => {
        show(options, await client.json({ method: 'GET', path: pathOf(options, kind) }), table)
      })
    })
  command
    .command('inspect')
    .description(kind === 'secret' ? 'what is known of it, without its content' : 'all of it')
    .argument('<name>')
    .action(async (name: string, _options: unknown, own: Command) => {
      const options = globalsOf(own)
      await withClient(options, async (client) => {
        const found = await client.json({ method: 'GET', path: pathOf(options, kind, name) })
        show(options, found, printDetails)
      })
    })
  command
    .command('rm')
    .description('remove it; pods that have it keep it')
    .argument('<name>')
    .action(async (name: string, _options: unknown, own: Command) => {
      const options = globalsOf(own)
      await withClient(options, async (client) => {
        await client.json({ method: 'DELETE', path: pathOf(options, kind, name) })
      })
    })
}

export function addStoredFiles(program: Command): void {
  for (const kind of ['config', 'secret'] as const) addKind(program, kind)
}
