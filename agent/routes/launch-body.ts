/** The body of a launch, from its wire form to a LaunchRequest: parsed once, typed from here on. */
import {
  type Static,
  type TArray,
  type TString,
  type TUnsafe,
  Type,
} from '@fastify/type-provider-typebox'
import { Value } from 'typebox/value'
import type { Canonical } from '../../policy/canonical.ts'
import {
  BadNoun,
  EGRESS_MAX,
  EGRESS_WORD_MAX,
  type FileWords,
  HOSTS_MAX,
  type LaunchRequest,
  type MountWords,
  NAMESERVERS_MAX,
  NO_NETWORK,
  PORTS_MAX,
  type PodId,
  type Principal,
  parseAnnotations,
  parseCapability,
  parseEgress,
  parseEnvironment,
  parseFiles,
  parseGroups,
  parseHostname,
  parseHosts,
  parseIsolationLevel,
  parseLabels,
  parseMemoryMib,
  parseMounts,
  parseNameservers,
  parseNetworkName,
  parsePodName,
  parsePublished,
  parseRestartRule,
  parseSearch,
  parseSignal,
  parseStopTimeoutMs,
  parseSysctls,
  parseUlimits,
  parseUser,
  parseVcpus,
  parseWorkingDirectory,
  type RestartRule,
  SEARCH_MAX,
} from '../../policy/index.ts'
import type { PodAbout } from '../../tenants/index.ts'
import { ApiError } from '../errors.ts'
import type { Credentials } from '../images/index.ts'
import { HEALTH_BODY, type HealthBody, parseHealth } from './health-body.ts'
import { FILES, MOUNTS } from './launch-storage.ts'
import { closed } from './schemas.ts'

const WORD_CHARACTERS_MAX = 32_768
const words = Type.Array(Type.String({ maxLength: WORD_CHARACTERS_MAX }), { maxItems: 256 })
const names = Type.Array(Type.String({ maxLength: 64 }), { maxItems: 64, uniqueItems: true })

const NAME_CHARACTERS_MAX = 300
const resolver = (maxItems: number, description: string): TArray<TString> =>
  Type.Array(Type.String({ maxLength: NAME_CHARACTERS_MAX }), { maxItems, description })

/** For this launch only. They never reach a record, the store or a log; see digestOf in pods.ts. */
const registryCredentials = Type.Object(
  {
    username: Type.String({ pattern: '^[^:\\u0000-\\u001f\\u007f]{1,255}$' }),
    password: Type.String({ minLength: 1, maxLength: 8192, writeOnly: true }),
  },
  {
    ...closed,
    description:
      'For the registry of the image and this launch only; stored and recorded nowhere. Not part of what an Idempotency-Key stands for',
  },
)

const body = Type.Object(
  {
    image: Type.String({ minLength: 1, maxLength: 512, description: 'Reference, with registry' }),
    isolation: Type.Optional(
      Type.Union([Type.Literal('vm'), Type.Literal('container'), Type.Literal('host')], {
        description: 'Exact: granted or refused. Without it, the strongest permitted',
      }),
    ),
    vcpus: Type.Optional(Type.Integer()),
    memory_mib: Type.Optional(Type.Integer()),
    hostname: Type.Optional(Type.String({ maxLength: 64 })),
    entrypoint: Type.Optional(words),
    args: Type.Optional(words),
    env: Type.Optional(words),
    cwd: Type.Optional(Type.String({ maxLength: 4096 })),
    user: Type.Optional(Type.String({ maxLength: 256 })),
    capabilities_add: Type.Optional(names),
    capabilities_drop: Type.Optional(names),
    read_only_root: Type.Optional(Type.Boolean()),
    mounts: Type.Optional(MOUNTS),
    files: Type.Optional(FILES),
    shm_bytes: Type.Optional(Type.Integer({ description: 'Size of /dev/shm; 64 MiB if left out' })),
    sysctls: Type.Optional(
      Type.Record(Type.String(), Type.String(), {
        description: 'Parameters of the kernel that are the pod’s own, as net.core.somaxconn',
      }),
    ),
    network: Type.Optional(
      Type.String({
        maxLength: 63,
        description:
          'none; default: the tenant’s own, on which its pods reach each other, and what its egress permits; host: the host’s, at level host and only there. Without it, none',
      }),
    ),
    name: Type.Optional(
      Type.String({
        maxLength: 63,
        description: 'Unique among the tenant’s pods that have not ended',
      }),
    ),
    labels: Type.Optional(Type.Record(Type.String(), Type.String())),
    annotations: Type.Optional(Type.Record(Type.String(), Type.String())),
    ulimits: Type.Optional(
      Type.Array(Type.String({ maxLength: 64 }), {
        maxItems: 16,
        description: 'NAME=SOFT or NAME=SOFT:HARD, as nofile=1024:4096',
      }),
    ),
    groups: Type.Optional(
      Type.Array(Type.Integer(), { maxItems: 64, description: 'Further groups, by number' }),
    ),
    stop_signal: Type.Optional(
      Type.String({
        maxLength: 16,
        description: 'Name or number, as in signal(7). Without it, the image’s, or TERM',
      }),
    ),
    stop_timeout_ms: Type.Optional(
      Type.Integer({ description: 'From asking to killing, up to 600,000; 10,000 if left out' }),
    ),
    restart: Type.Optional(
      Type.String({
        maxLength: 32,
        description:
          'When to start it again after its end: no, on-failure, on-failure:N (N times in a row at most), always, unless-stopped. Without it, no',
      }),
    ),
    egress: Type.Optional(
      Type.Array(Type.String({ maxLength: EGRESS_WORD_MAX }), {
        maxItems: EGRESS_MAX,
        uniqueItems: true,
        description:
          'What it may reach beside its tenant’s pods, as in the tenant’s egress and never more; without it all of that, [] nothing',
      }),
    ),
    nameservers: Type.Optional(
      resolver(NAMESERVERS_MAX, 'Addresses in place of the host’s nameservers'),
    ),
    search: Type.Optional(resolver(SEARCH_MAX, 'Domains in place of the host’s')),
    publish: Type.Optional(
      resolver(
        PORTS_MAX,
        'Ports of the host that lead to it: [address:]host:pod[/udp], 127.0.0.1 without an address',
      ),
    ),
    hosts: Type.Optional(resolver(HOSTS_MAX, 'Lines of /etc/hosts, as name:address')),
    health: Type.Optional(HEALTH_BODY),
    registry_credentials: Type.Optional(registryCredentials),
  },
  closed,
)
/** The wire form of a launch, member by member as in docs of the API. */
export interface LaunchBody {
  image: string
  isolation?: 'vm' | 'container' | 'host'
  vcpus?: number
  memory_mib?: number
  hostname?: string
  entrypoint?: string[]
  args?: string[]
  env?: string[]
  cwd?: string
  user?: string
  capabilities_add?: string[]
  capabilities_drop?: string[]
  read_only_root?: boolean
  mounts?: MountWords[]
  files?: FileWords[]
  shm_bytes?: number
  sysctls?: Record<string, string>
  network?: string
  name?: string
  labels?: Record<string, string>
  annotations?: Record<string, string>
  ulimits?: string[]
  groups?: number[]
  stop_signal?: string
  stop_timeout_ms?: number
  restart?: string
  egress?: string[]
  nameservers?: string[]
  search?: string[]
  hosts?: string[]
  publish?: string[]
  health?: HealthBody
  registry_credentials?: { username: string; password: string }
}
/** Compiles only while schema and interface say the same. */
export const LAUNCH_BODY: TUnsafe<LaunchBody> = Type.Unsafe<Static<typeof body>>(body)

function optional<In, Out>(value: In | undefined, parse: (value: In) => Out): Out | null {
  return value === undefined ? null : parse(value)
}

/** What goes to the registry. Not in the LaunchRequest, which policies, records and the store see. */
export const credentialsOf = ({ registry_credentials: given }: LaunchBody): Credentials | null =>
  given === undefined ? null : { kind: 'password', ...given }

/** What people call the pod. @throws BadNoun */
export const aboutOf = ({ name, labels, annotations }: LaunchBody): PodAbout => ({
  name: optional(name, parsePodName),
  labels: parseLabels(labels ?? {}),
  annotations: parseAnnotations(annotations ?? {}),
})

/**
 * When the pod is started again; null: never.
 * @throws BadNoun; ApiError RESTART_NEEDS_OPEN_REGISTRY
 */
export function restartOf({
  restart,
  registry_credentials: given,
}: LaunchBody): RestartRule | null {
  const rule = optional(restart, parseRestartRule)
  if (rule === null || given === undefined) return rule
  const sentence =
    'A restart asks the registry again, and credentials are stored nowhere. Leave out the restart rule, or use an image that the registry gives without a login.'
  throw new ApiError('RESTART_NEEDS_OPEN_REGISTRY', sentence)
}

/** A launch's body as the store kept it; an earlier version may have written it. @throws BadNoun */
export function parseKeptLaunch(kept: Canonical): LaunchBody {
  const wire: unknown = kept
  if (Value.Check(LAUNCH_BODY, wire)) return wire
  throw new BadNoun('request', 'was kept by another version and is none of this one')
}

/** @throws BadNoun; also for what only a pod with a network has */
function parseWays(
  wire: LaunchBody,
): Pick<LaunchRequest, 'network' | 'egress' | 'nameservers' | 'search' | 'hosts' | 'publish'> {
  const network = optional(wire.network, parseNetworkName) ?? NO_NETWORK
  const { egress, nameservers, search, hosts, publish } = wire
  if (
    network === NO_NETWORK &&
    [egress, nameservers, search, hosts, publish].some((one) => (one ?? []).length > 0)
  ) {
    throw new BadNoun(
      'network',
      'must be default for egress, nameservers, search, hosts and publish',
    )
  }
  return {
    network,
    egress: optional(egress, (wanted) => ({ wanted: parseEgress(wanted) })),
    nameservers: optional(nameservers, parseNameservers),
    search: optional(search, parseSearch),
    hosts: parseHosts(hosts ?? []),
    publish: parsePublished(publish ?? []),
  }
}

/** @throws BadNoun */
const parseStorage = (wire: LaunchBody): Pick<LaunchRequest, 'files' | 'mounts' | 'sysctls'> => ({
  files: parseFiles(wire.files ?? []),
  mounts: parseMounts(wire.mounts ?? [], wire.shm_bytes),
  sysctls: parseSysctls(wire.sysctls ?? {}),
})

/** @throws BadNoun */
export function parseLaunch(wire: LaunchBody, pod: PodId, principal: Principal): LaunchRequest {
  return {
    pod,
    principal,
    isolation: optional(wire.isolation, parseIsolationLevel),
    vcpus: optional(wire.vcpus, parseVcpus),
    memoryMib: optional(wire.memory_mib, parseMemoryMib),
    hostname: optional(wire.hostname, parseHostname),
    entrypoint: wire.entrypoint ?? null,
    args: wire.args ?? null,
    env: optional(wire.env, parseEnvironment),
    cwd: optional(wire.cwd, parseWorkingDirectory),
    user: optional(wire.user, parseUser),
    capabilitiesAdd: (wire.capabilities_add ?? []).map(parseCapability),
    capabilitiesDrop: (wire.capabilities_drop ?? []).map(parseCapability),
    readOnlyRoot: wire.read_only_root ?? false,
    ...parseStorage(wire),
    ...parseWays(wire),
    ulimits: parseUlimits(wire.ulimits ?? []),
    additionalGids: parseGroups(wire.groups ?? []),
    stopSignal: optional(wire.stop_signal, parseSignal),
    stopTimeoutMs: optional(wire.stop_timeout_ms, parseStopTimeoutMs),
    health: optional(wire.health, (given) =>
      parseHealth(given, optional(wire.restart, parseRestartRule)),
    ),
  }
}
