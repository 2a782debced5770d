/** The process of a pod: the image's config with the request laid over it, parsed as one. */
import type { ImageConfig, LaunchRequest } from './facts.ts'
import { BadNoun } from './nouns/brand.ts'
import {
  type Capability,
  DOCKER_DEFAULT_CAPABILITIES,
  UNTRUSTED_DEFAULT_CAPABILITIES,
} from './nouns/capability.ts'
import type { IsolationLevel } from './nouns/isolation.ts'
import {
  environmentKey,
  parseArguments,
  parseEnvironment,
  parseUser,
  parseWorkingDirectory,
  type User,
} from './nouns/process.ts'
import { parseSignal, SIGTERM, type Signal } from './nouns/signal.ts'
import type { Trust } from './nouns/tenant.ts'
import type { CapabilitySets, PlannedProcess, ResourceLimit } from './plan.ts'
import { Refusal } from './refusal.ts'

/** For images that set no PATH: what Docker and containerd use. */
const DEFAULT_PATH = 'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** The default of the tenant's trust, with what was asked for added and taken away, sorted. */
export function wantedCapabilities(trust: Trust, request: LaunchRequest): readonly Capability[] {
  const base = trust === 'trusted' ? DOCKER_DEFAULT_CAPABILITIES : UNTRUSTED_DEFAULT_CAPABILITIES
  const wanted = new Set([...base, ...request.capabilitiesAdd])
  for (const dropped of request.capabilitiesDrop) wanted.delete(dropped)
  return [...wanted].toSorted()
}

/** @throws Refusal IMAGE_CONFIG_INVALID */
export function planProcess(
  config: ImageConfig,
  request: LaunchRequest,
  capabilities: readonly Capability[],
): PlannedProcess {
  try {
    const user = request.user ?? parseUser(config.user)
    return {
      args: parseArguments(commandOf(config, request)),
      env: parseEnvironment(environmentOf(config, request)),
      cwd: request.cwd ?? parseWorkingDirectory(config.workingDir === '' ? '/' : config.workingDir),
      user,
      additionalGids: request.additionalGids,
      capabilities: capabilitySets(user, capabilities),
      rlimits: limitsOf(request),
      noNewPrivileges: true,
      stopSignal: request.stopSignal ?? imageSignal(config),
    }
  } catch (error) {
    if (!(error instanceof BadNoun)) throw error
    throw new Refusal(
      'IMAGE_CONFIG_INVALID',
      `The image's config, with the request laid over it, cannot be run: ${error.message}.`,
      { what: error.noun },
    )
  }
}

const DEFAULT_LIMITS: readonly ResourceLimit[] = [
  { type: 'RLIMIT_NOFILE', soft: 1024, hard: 524_288 },
]

function limitsOf({ ulimits }: LaunchRequest): readonly ResourceLimit[] {
  const merged = new Map([...DEFAULT_LIMITS, ...ulimits].map((limit) => [limit.type, limit]))
  return [...merged.values()].toSorted((a, b) => (a.type < b.type ? -1 : 1))
}

/** Beyond these a process goes beyond its cgroup, or to the host: as in native/ticket/src/app.rs. */
const HOST_LIMITS = new Set(['RLIMIT_CORE', 'RLIMIT_NICE', 'RLIMIT_RTPRIO', 'RLIMIT_RTTIME'])

/** Below level vm the kernel is the host's, and so are these. @throws Refusal ULIMIT_NOT_PERMITTED */
export function refuseHostLimits(limits: readonly ResourceLimit[], level: IsolationLevel): void {
  const found = limits.find(({ type }) => HOST_LIMITS.has(type))
  if (level === 'vm' || found === undefined) return
  const ulimit = found.type.slice('RLIMIT_'.length).toLowerCase()
  throw new Refusal(
    'ULIMIT_NOT_PERMITTED',
    `The limit ${ulimit} is the host's at level ${level}. Ask for level vm, or leave it out.`,
    { ulimit, level },
  )
}

function imageSignal({ stopSignal }: ImageConfig): Signal {
  return stopSignal === null || stopSignal === '' ? SIGTERM : parseSignal(stopSignal)
}

function commandOf(config: ImageConfig, request: LaunchRequest): readonly string[] {
  const entrypoint = request.entrypoint ?? config.entrypoint
  const args = request.args ?? (request.entrypoint === null ? config.cmd : [])
  return [...entrypoint, ...args]
}

function environmentOf(config: ImageConfig, request: LaunchRequest): readonly string[] {
  const merged = new Map<string, string>()
  // Image entries without `=` are dropped, as by Docker; in a request they were refused.
  const fromImage = config.env.filter((entry) => entry.indexOf('=') > 0)
  for (const entry of [DEFAULT_PATH, ...fromImage, ...(request.env ?? [])]) {
    merged.set(environmentKey(entry), entry)
  }
  return [...merged.values()]
}

/**
 * Another user than root starts with an empty effective set, as under Docker: capabilities then come
 * only with a file that carries them, up to the bounding set.
 */
function capabilitySets(user: User, capabilities: readonly Capability[]): CapabilitySets {
  const [name = ''] = user.split(':')
  const held = name === '' || name === '0' || name === 'root' ? capabilities : []
  return {
    ambient: [],
    bounding: capabilities,
    effective: held,
    inheritable: [],
    permitted: held,
  }
}
