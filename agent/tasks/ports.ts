/** What the tasks work with. compose.ts makes all of it, tests make parts of it. */
import type { FastifyBaseLogger } from 'fastify'
import type { Clock } from '../../audit/index.ts'
import type { Launcher } from '../../native/launcher.ts'
import type { SeccompCompiler } from '../../native/seccomp/compile.ts'
import type { SpawnClient } from '../../native/spawn-client.ts'
import type { ActivePolicies, ImageRule, IsolationLevel, Resolver } from '../../policy/index.ts'
import type { Tenants } from '../../tenants/index.ts'
import type { AuditPort } from '../audit-gate.ts'
import type { HostSafety } from '../host/safety.ts'
import type { Images } from '../images/index.ts'
import type { PodFiles } from '../pod-files.ts'
import type { Ages } from './gc.ts'

export interface Ports {
  readonly tenants: Tenants
  readonly images: Images
  readonly audit: AuditPort
  readonly spawn: SpawnClient
  readonly launchers: Readonly<Record<IsolationLevel, Launcher>>
  readonly seccomp: SeccompCompiler
  readonly files: PodFiles
  readonly clock: Clock
  readonly safety: HostSafety
  /** ms since 1970. */
  readonly now: () => number
  readonly policies: ActivePolicies
  /** The provider's rule for all tenants' images; null: none. */
  readonly imageFloor: ImageRule | null
  readonly resolver: Resolver
  /** From which on ended pods and unused images go by themselves. */
  readonly ages: Ages
  readonly log: FastifyBaseLogger
}
