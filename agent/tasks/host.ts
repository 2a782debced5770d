/** The host as the policy sees it: what spawn describes, and what this version can start. */
import type { HostDescription } from '../../native/spawn-answers.ts'
import { type SpawnClient, SpawnError } from '../../native/spawn-client.ts'
import { type HostException, type HostFacts, parseIsolationLevel } from '../../policy/index.ts'
import { ApiError } from '../errors.ts'
import type { HostReport } from '../host/report.ts'

/** Without spawn nothing can be started, and the caller should know that it is not its fault. */
export const spawnUnavailable = (cause: SpawnError): ApiError =>
  new ApiError(
    'SPAWN_UNAVAILABLE',
    'What starts virtual machines on this host does not answer. Try again, or ask the operator.',
    { spawn: cause.code },
    { cause },
  )

/** @throws ApiError SPAWN_UNAVAILABLE */
export async function describeHost(spawn: SpawnClient): Promise<HostDescription> {
  try {
    return await spawn.describe()
  } catch (error) {
    throw error instanceof SpawnError ? spawnUnavailable(error) : error
  }
}

export interface FoundHost {
  readonly host: HostDescription
  readonly report: HostReport
  /** Those in force. */
  readonly exceptions: readonly HostException[]
}

export const hostFacts = (
  { host, report, exceptions }: FoundHost,
  { imageFloor, resolver }: Pick<HostFacts, 'imageFloor' | 'resolver'>,
): HostFacts => ({
  kvm: host.kvm,
  kvmReason: host.kvm_reason,
  allowSoftwareKvm: host.allow_software_kvm,
  findings: report,
  exceptions,
  levels: Object.fromEntries(
    Object.entries(host.levels).map(([tenant, levels]) => [
      tenant,
      levels.map(parseIsolationLevel),
    ]),
  ),
  hostPaths: host.host_paths,
  launchers: host.container === null ? ['vm'] : ['vm', 'container', 'host'],
  resolver,
  imageFloor,
})
