/** What every command has: the global options, a client, and the tenant that is meant. */
import type { Command } from 'commander'
import { UsageError } from './arguments.ts'
import { type Client, connect, type Target, tenantOfToken } from './client.ts'
import { printJson } from './output.ts'

export interface GlobalOptions extends Target {
  readonly output: 'table' | 'json'
  readonly tenant?: string
}

export const globalsOf = (command: Command): GlobalOptions =>
  command.optsWithGlobals<GlobalOptions>()

/** The tenant of a command: the flag, the environment, or the one that the token is for. */
export function tenantOf(options: GlobalOptions): string {
  const tenant = options.tenant ?? process.env['CASEMATE_TENANT'] ?? tenantOfToken(options)
  if (tenant !== null) return tenant
  throw new UsageError('which tenant? Give --tenant, CASEMATE_TENANT or a token file')
}

export const podsPath = (options: GlobalOptions): string =>
  `/v1/tenants/${encodeURIComponent(tenantOf(options))}/pods`

export const podPath = (options: GlobalOptions, pod: string): string =>
  `${podsPath(options)}/${encodeURIComponent(pod)}`

/** Runs `use` with a client and closes it. */
export async function withClient<T>(
  options: GlobalOptions,
  use: (client: Client) => Promise<T>,
): Promise<T> {
  const client = connect(options)
  try {
    return await use(client)
  } finally {
    await client.close()
  }
}

/** Prints as JSON when that was asked for; otherwise lets `table` print it. */
export function show(
  options: GlobalOptions,
  value: unknown,
  table: (value: unknown) => void,
): void {
  if (options.output === 'json') printJson(value)
  else table(value)
}

/** For options that may be given several times. */
export const several = (value: string, before: readonly string[] = []): readonly string[] => [
  ...before,
  value,
]
