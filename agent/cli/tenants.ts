/** `casemate tenant create|change|list|show` and `casemate token issue`: for operators. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import { integer, readNamed, UsageError, wordsOf } from './arguments.ts'
import { globalsOf, several, show, tenantOf, withClient } from './context.ts'
import { field, items, printDetails, printTable, say } from './output.ts'

/** As the API takes it. */
interface Quota {
  readonly vcpus: number
  readonly memory_mib: number
  readonly pods: number
  readonly launches_per_minute: number | undefined
  readonly volumes: number | undefined
  readonly volume_mib: number | undefined
}

interface SettingOptions {
  readonly trust?: string
  readonly display?: string
  readonly imageRule?: string
  readonly quota?: Quota
  readonly egress?: readonly string[]
  readonly ports?: readonly string[]
  readonly state?: string
}

/** `vcpus,memory_mib,pods`; `,launches_per_minute` and `,volumes,volume_mib` where those are to be set too. */
function parseQuota(text: string): Quota {
  const found = text.split(',').map((part) => (/^\d+$/u.test(part) ? Number(part) : Number.NaN))
  const [vcpus = 0, memory = 0, pods = 0, launches, volumes, volumeMib] = found
  if ([3, 4, 6].includes(found.length) && found.every(Number.isSafeInteger)) {
    const more = { launches_per_minute: launches, volumes, volume_mib: volumeMib }
    return { vcpus, memory_mib: memory, pods, ...more }
  }
  throw new InvalidArgumentError(
    'integers: vcpus,memory_mib,pods or with ,launches_per_minute or that and ,volumes,volume_mib',
  )
}

/** Only that it is JSON is looked at here; what a rule must be, the agent says. */
function ruleOf(file: string): unknown {
  const text = readNamed('--image-rule', file)
  try {
    return JSON.parse(text)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new UsageError(`--image-rule ${file} is no JSON: ${why}`, { cause })
  }
}

function bodyOf(options: SettingOptions): object {
  const { trust, display, state, imageRule, quota: quotas, egress, ports } = options
  const rule = imageRule === undefined ? undefined : ruleOf(imageRule)
  return {
    trust,
    display,
    state,
    quotas,
    egress: wordsOf(egress),
    ports: wordsOf(ports),
    image_rule: rule,
  }
}

const TRUSTS = ['untrusted', 'verified', 'trusted']
const STATES = ['active', 'suspended']
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

const withSettings = (command: Command): Command =>
  command
    .addOption(new Option('--trust <trust>', 'how far it is trusted').choices(TRUSTS))
    .option('--display <name>', 'a name for people')
    .option('--image-rule <file>', 'JSON: which images, signed by whom')
    .option(
      '--ports <range>',
      'ports of the host that pods may have: none, 8000-8099, 0.0.0.0:443; repeatable',
      several,
    )
    .option(
      '--egress <network>',
      'what pods may reach beside each other: none, internet, 192.0.2.0/24=tcp:443; repeatable, all of them',
      several,
    )
    .option(
      '--quota <vcpus,memory_mib,pods[,launches[,volumes,volume_mib]]>',
      'the most it may hold at once, launches a minute, its volumes and their sizes together',
      parseQuota,
    )

export function addTenants(program: Command): void {
  const tenant = program.command('tenant').description('tenants of this host')
  withSettings(tenant.command('create'))
    .description(
      'make a tenant: untrusted, with a quota of 4,4096,16,30,8,10240; without an image rule it runs nothing',
    )
    .argument('<id>', 'a-z, 0-9 and -, beginning with a letter')
    .action(async (id: string, settings: SettingOptions, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const body = { id, ...bodyOf(settings) }
        const found = await client.json({ method: 'POST', path: '/v1/tenants', body })
        show(options, found, printDetails)
      })
    })
  withSettings(tenant.command('change'))
    .description('change what is named, for launches from now on; pods run on')
    .argument('<id>')
    .addOption(new Option('--state <state>', 'a suspended tenant launches nothing').choices(STATES))
    .action(async (id: string, settings: SettingOptions, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const path = `/v1/tenants/${encodeURIComponent(id)}`
        const found = await client.json({ method: 'PATCH', path, body: bodyOf(settings) })
        show(options, found, printDetails)
      })
    })
  tenant
    .command('delete')
    .description('delete a suspended tenant whose pods have ended; its records stay')
    .argument('<id>')
    .action(async (id: string, _options, command: Command) => {
      await withClient(globalsOf(command), async (client) => {
        const path = `/v1/tenants/${encodeURIComponent(id)}`
        await client.json({ method: 'DELETE', path })
        say(`${id} is deleted`)
      })
    })
  const list = tenant.command('list').description('all tenants, with what they use')
  list.action(async (_options, command: Command) => {
    const options = globalsOf(command)
    await withClient(options, async (client) => {
      const found = await client.json({ method: 'GET', path: '/v1/tenants?limit=1000' })
      show(options, found, () => printTable(HEAD, items(found, 'tenants').map(row)))
    })
  })
  tenant
    .command('show')
    .description('one tenant, with its quotas and image rule')
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
    .option('--ttl <seconds>', 'until it expires; 3600 when left out, at most a day', integer)
    .action(async ({ name, ttl }: { name: string; ttl?: number }, command: Command) => {
      const options = globalsOf(command)
      await withClient(options, async (client) => {
        const path = `/v1/tenants/${encodeURIComponent(tenantOf(options))}/tokens`
        const found = await client.json({ method: 'POST', path, body: { name, ttl_s: ttl } })
        show(options, found, () => process.stdout.write(`${field(found, 'token')}\n`))
      })
    })
}
