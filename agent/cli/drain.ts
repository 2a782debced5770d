/** `casemate host drain|undrain|status`: taking a host out of service and back. */
import { setTimeout as delay } from 'node:timers/promises'
import type { Command } from 'commander'
import type { Client } from './client.ts'
import { globalsOf, show, withClient } from './context.ts'
import { EXIT } from './exit-codes.ts'
import { field, printDetails, say } from './output.ts'
import { span } from './span.ts'

const PATH = '/v1/host/drain'
const LOOK_MS = 500

/** Waits until it is done; somebody may end it before. */
async function drained(client: Client): Promise<unknown> {
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- waiting is the point
    const found = await client.json({ method: 'GET', path: PATH })
    if (field(found, 'draining') !== 'true' || field(found, 'done') === 'true') return found
    // oxlint-disable-next-line no-await-in-loop
    await delay(LOOK_MS)
  }
}

interface DrainOptions {
  readonly deadline: number
  readonly detach?: boolean
}

export function addDrain(host: Command): void {
  host
    .command('drain')
    .description('launch nothing any more, end what runs, wait for it and report')
    .option('--deadline <span>', 'as 10m: pods that still run then are killed', span, 600_000)
    .option('-d, --detach', 'do not wait')
    .action(async ({ deadline, detach }: DrainOptions, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = { deadline_s: Math.ceil(deadline / 1000) }
        const begun = await client.json({ method: 'POST', path: PATH, body })
        const found = detach === true ? begun : await drained(client)
        show(options, found, printDetails)
        const left = Number(field(found, 'left'))
        if (detach === true || left === 0) return
        say(`casemate: ${left} pods have not ended`)
        process.exitCode = EXIT.timeout
      })
    })
  host
    .command('undrain')
    .description('launch again; pods that waited for it are started again')
    .action(async (_options, command: Command) => {
      await withClient(globalsOf(command), async (client) => {
        await client.json({ method: 'DELETE', path: PATH })
      })
    })
  host
    .command('status')
    .description('whether the host is drained, and how far')
    .action(async (_options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        show(options, await client.json({ method: 'GET', path: PATH }), printDetails)
      })
    })
}
