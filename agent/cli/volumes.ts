/** `casemate volume …`: named volumes, which outlive their pods, and snapshots of them. */
import { open } from 'node:fs/promises'
import type { Command } from 'commander'
import { type GlobalOptions, globalsOf, show, tenantOf, withClient } from './context.ts'
import { bytesOf } from './mounts.ts'
import { field, items, printDetails, printTable } from './output.ts'

const HEAD = ['VOLUME', 'SNAPSHOT', 'SIZE MIB', 'USED MIB', 'CREATED', 'VM ONLY', 'POD']

const sizeOf = (text: string): number => bytesOf('--size', text)

const volumesPath = (options: GlobalOptions): string =>
  `/v1/tenants/${encodeURIComponent(tenantOf(options))}/volumes`

const volumePath = (options: GlobalOptions, ...names: readonly string[]): string =>
  [volumesPath(options), ...names.map(encodeURIComponent)].join('/')

const mib = (bytes: string): string => (Number(bytes) / 2 ** 20).toFixed(1)

const row = (volume: string, snapshot: string, found: unknown): readonly string[] => [
  volume,
  snapshot,
  mib(field(found, 'size_bytes')),
  mib(field(found, 'used_bytes')),
  field(found, 'created'),
  field(found, 'vm_only') === 'true' ? 'yes' : '',
  field(found, 'pod'),
]

const rows = (volume: unknown): readonly (readonly string[])[] => [
  row(field(volume, 'name'), '', volume),
  ...items(volume, 'snapshots').map((one) => row(field(volume, 'name'), field(one, 'name'), one)),
]

/** Blocks of zeros are left out of the file. */
async function writeSparse(file: string, bytes: AsyncIterable<Buffer>): Promise<number> {
  const handle = await open(file, 'wx', 0o600)
  let position = 0
  try {
    for await (const chunk of bytes) {
      if (chunk.some((byte) => byte !== 0)) await handle.write(chunk, 0, chunk.length, position)
      position += chunk.length
    }
    await handle.truncate(position)
  } finally {
    await handle.close()
  }
  return position
}

const size = ['--size <size>', 'the most that it holds: 512m, 10g; 64m to 256g', sizeOf] as const

function addChanges(volume: Command): void {
  volume
    .command('create')
    .description('make an empty volume')
    .argument('<name>', 'a-z, 0-9 and -')
    .requiredOption(...size)
    .action(async (name: string, wish: { size: number }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = { name, size_bytes: wish.size }
        const found = await client.json({ method: 'POST', path: volumesPath(options), body })
        show(options, found, printDetails)
      })
    })
  volume
    .command('rm')
    .description('destroy a volume that no pod has, or one snapshot of it')
    .argument('<name>')
    .argument('[snapshot]')
    .action(async (name: string, snapshot: string | undefined, _options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const names = snapshot === undefined ? [name] : [name, 'snapshots', snapshot]
        await client.json({ method: 'DELETE', path: volumePath(options, ...names) })
      })
    })
  volume
    .command('grow')
    .description('make a volume larger that no pod has')
    .argument('<name>')
    .requiredOption(...size)
    .action(async (name: string, wish: { size: number }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = { size_bytes: wish.size }
        const path = volumePath(options, name, 'grow')
        show(options, await client.json({ method: 'POST', path, body }), printDetails)
      })
    })
}

function addSnapshots(volume: Command): void {
  for (const verb of ['snapshot', 'restore'] as const) {
    volume
      .command(verb)
      .description(
        verb === 'snapshot'
          ? 'copy a volume that no pod has'
          : 'have a snapshot in place of what a volume holds',
      )
      .argument('<name>')
      .argument('<snapshot>')
      .action(async (name: string, snapshot: string, _options, command: Command) => {
        const options = globalsOf(command)
        await withClient(options, async (client) => {
          const snapshots = verb === 'snapshot'
          const path = volumePath(options, name, snapshots ? 'snapshots' : 'restore')
          const body = snapshots ? { name: snapshot } : { snapshot }
          show(options, await client.json({ method: 'POST', path, body }), printDetails)
        })
      })
  }
  volume
    .command('export')
    .description('write a snapshot’s bytes, a disk with an ext4 file system, into a new file')
    .argument('<name>')
    .argument('<snapshot>')
    .requiredOption('--to <file>', 'must not be there yet')
    .action(async (name: string, snapshot: string, { to }: { to: string }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const path = volumePath(options, name, 'snapshots', snapshot, 'export')
        const bytes = await client.stream({ method: 'POST', path, body: {} })
        show(options, { file: to, size_bytes: await writeSparse(to, bytes) }, printDetails)
      })
    })
}

export function addVolumes(program: Command): void {
  const volume = program.command('volume').description('named volumes, which outlive their pods')
  volume
    .command('ls')
    .description('all volumes and snapshots')
    .action(async (_options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const found = await client.json({ method: 'GET', path: volumesPath(options) })
        show(options, found, () => printTable(HEAD, items(found, 'volumes').flatMap(rows)))
      })
    })
  volume
    .command('inspect')
    .description('one volume, with its snapshots')
    .argument('<name>')
    .action(async (name: string, _options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const found = await client.json({ method: 'GET', path: volumePath(options, name) })
        show(options, found, printDetails)
      })
    })
  addChanges(volume)
  addSnapshots(volume)
}
