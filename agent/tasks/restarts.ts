/**
 * Looks which pods are due to be started again. The store knows; nothing is remembered here but what
 * is under way, so an agent that is started anew goes on where the last one was.
 */
import type { PodId, TenantId } from '../../policy/index.ts'
import type { LaunchPorts } from './launch.ts'
import { restart } from './restart.ts'

const LOOK_MS = 250
/** Under way at once; after a power cut all pods of a host are due together. */
const AT_ONCE_MAX = 64
/** Of one tenant: a registry of its that never answers holds up its own pods, and few of the others'. */
const TENANT_AT_ONCE_MAX = 2

export class Restarts {
  readonly #ports: LaunchPorts
  readonly #underWay = new Map<PodId, TenantId>()
  #timer: NodeJS.Timeout | null = null
  #looking = false

  constructor(ports: LaunchPorts) {
    this.#ports = ports
  }

  start(): void {
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
  }

  /** Those under way go on; `launching` waits for them. */
  stop(): void {
    if (this.#timer !== null) clearInterval(this.#timer)
  }

  async #look(): Promise<void> {
    if (this.#looking) return
    this.#looking = true
    try {
      const most = { ofTenant: TENANT_AT_ONCE_MAX, ofAll: AT_ONCE_MAX }
      for (const due of await this.#ports.tenants.duePods(most)) this.#begin(due)
    } catch (error) {
      this.#ports.log.error({ err: error }, 'pods that are due were not looked for')
    } finally {
      this.#looking = false
    }
  }

  #begin(due: Parameters<typeof restart>[1]): void {
    const { origin, tenant } = due.pod
    const same = [...this.#underWay.values()].filter((one) => one === tenant).length
    const full = this.#underWay.size >= AT_ONCE_MAX || same >= TENANT_AT_ONCE_MAX
    if (full || this.#underWay.has(origin)) return
    let end: () => void
    try {
      end = this.#ports.launching.begin()
    } catch {
      return // the agent is ending, or the host is drained; the pod stays due
    }
    this.#underWay.set(origin, tenant)
    restart(this.#ports, due)
      .catch((error: unknown) => {
        this.#ports.log.error({ err: error, pod: origin }, 'a pod was not started again')
      })
      .finally(() => {
        this.#underWay.delete(origin)
        end()
      })
  }
}
