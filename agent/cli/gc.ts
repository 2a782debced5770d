/** `casemate gc`: what nobody uses any more. */
import type { Command } from 'commander'
import { globalsOf, show, withClient } from './context.ts'
import { field, items, printTable, say } from './output.ts'
import { span } from './span.ts'

interface GcOptions {
  readonly dryRun?: boolean
  readonly pods?: number
  readonly images?: number
}

const ofPod = (one: unknown): readonly string[] =>
  ['tenant', 'launch', 'ended'].map((name) => field(one, name))
const ofImages = (one: unknown): readonly string[] =>
  ['tenant', 'files', 'bytes'].map((name) => field(one, name))

const secondsOf = (ms: number | undefined): number | undefined =>
  ms === undefined ? undefined : Math.floor(ms / 1000)

export function addGc(program: Command): void {
  program
    .command('gc')
    .description('remove pods that ended long ago and unused images, of all tenants; for operators')
    .option('--dry-run', 'say what would go, and take nothing')
    .option('--pods <span>', 'that ended so long ago, as 30d; else as agent.json has it', span)
    .option('--images <span>', 'that no launch used for so long; likewise', span)
    .action(async ({ dryRun, pods, images }: GcOptions, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = {
          dry_run: dryRun === true,
          pods_older_than_s: secondsOf(pods),
          images_older_than_s: secondsOf(images),
        }
        const found = await client.json({ method: 'POST', path: '/v1/gc', body })
        show(options, found, () => {
          printTable(['TENANT', 'LAUNCH', 'ENDED'], items(found, 'pods').map(ofPod))
          printTable(['TENANT', 'FILES', 'BYTES'], items(found, 'images').map(ofImages))
          if (dryRun === true) say('nothing was removed: --dry-run')
        })
      })
    })
}
