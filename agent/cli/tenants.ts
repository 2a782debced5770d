/** `casemate tenant create|list|show` and `casemate token issue`: for operators. */
import { readFileSync } from 'node:fs'
import { type Command, InvalidArgumentError } from 'commander'
import { globalsOf, show, tenantOf, withClient } from './context.ts'
import { field, items, printDetails, printTable } from './output.ts'

interface CreateOptions {
  readonly trust?: string
  readonly display?: string
  readonly imageRule?: string
  readonly quota?: readonly [number, number, number]
}

/** `vcpus,memory_mib,pods`. */
function parseQuota(text: string): readonly [number, number, number] {
  const [vcpus, memory, pods, ...rest] = text.split(',').map(Number)
  const found = [vcpus, memory, pods]
  if (rest.length === 0 && found.every((value) => Number.isSafeInteger(value))) {
    return [vcpus ?? 0, memory ?? 0, pods ?? 0]
  }
  throw new InvalidArgumentError('three integers: vcpus,memory_mib,pods')
}

function bodyOf(id: string, options: CreateOptions): object {
  const { trust, display, imageRule, quota } = options
  const rule: unknown =
    imageRule === undefined ? undefined : JSON.parse(readFileSync(imageRule, 'utf8'))
  const quotas =
    quota === undefined ? undefined : { vcpus: quota[0], memory_mib: quota[1], pods: quota[2] }
  return { id, trust, display, quotas, image_rule: rule }
}

const HEAD = ['TENANT', 'TRUST', 'STATE', 'PODS', 'MEMORY MIB', 'VCPUS', 'IMAGE RULE']

const use = (tenant: unknown, what: string): string =>
  `${field(tenant, 'quotas', what, 'used')}/${field(tenant, 'quotas', what, 'limit')}`

const row = (tenant: unknown): readonly string[] => [
  field(tenant, 'id'),
  field(tenant, 'trust'),
  field(tenant, 'state'),
  use(tenant, 'pods'),
  use(tenant, 'memory_mib'),
  use(tenant, 'vcpus'),
  field(tenant, 'image_rule', 'digest'),
]

export function addTenants(program: Command): void {
  const tenant = program.command('tenant').description('tenants of this host')
  tenant
    .command('create')
    .argument('<id>')
    .option('--trust <trust>', 'untrusted, verified or trusted')
    .option('--display <name>', 'a name for people')
    .option('--image-rule <file>', 'JSON: which images, signed by whom')
    .option('--quota <vcpus,memory_mib,pods>', 'the most it may hold at once', parseQuota)
    .action(async (id: string, create: CreateOptions, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = bodyOf(id, create)
        const found = await client.json({ method: 'POST', path: '/v1/tenants', body })
        show(options, found, printDetails)
      })
    })
  tenant.command('list').action(async (_options, command: Command) => {
    const options = globalsOf(command)
    await withClient(options, async (client) => {
      const found = await client.json({ method: 'GET', path: '/v1/tenants' })
      show(options, found, () => printTable(HEAD, items(found, 'tenants').map(row)))
    })
  })
  tenant
    .command('show')
    .argument('<id>')
    .action(async (id: string, _options, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const path = `/v1/tenants/${encodeURIComponent(id)}`
        show(options, await client.json({ method: 'GET', path }), printDetails)
      })
    })
}

export function addTokens(program: Command): void {
  program
    .command('token')
    .description('access tokens of tenants')
    .command('issue')
    .description('print a new access token of --tenant; it is shown once')
    .requiredOption('--name <name>', 'of the identity: ci, alice')
    .option('--ttl <seconds>', 'until it expires; at most a day', Number)
    .action(async ({ name, ttl }: { name: string; ttl?: number }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const path = `/v1/tenants/${encodeURIComponent(tenantOf(options))}/tokens`
        const found = await client.json({ method: 'POST', path, body: { name, ttl_s: ttl } })
        show(options, found, () => process.stdout.write(`${field(found, 'token')}\n`))
      })
    })
}
