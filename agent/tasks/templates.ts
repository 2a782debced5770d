/**
 * Templates: each shape of the catalogue is built once, by spawn, when it is first wanted, and what
 * was built goes on record. A launch of that shape waits for it: a cold boot beside the build would
 * take the same CPU for longer.
 */
import type { HostDescription, Template } from '../../native/spawn-answers.ts'
import type { Ports } from './ports.ts'
import { textDigest } from './record-parts.ts'

interface Shape {
  readonly vcpus: number
  readonly memoryMib: number
}

/** The shapes that launches restore from; every other one boots cold. */
const CATALOGUE: readonly Shape[] = [
  { vcpus: 1, memoryMib: 128 },
  { vcpus: 2, memoryMib: 256 },
]
/** Built before anybody asks: what a launch gets that asks for no size. */
const [DEFAULT_SHAPE] = CATALOGUE
/** A build that failed is not tried again with every launch. */
const RETRY_MS = 600_000

const record = (template: Template, host: HostDescription, kvm: 'software' | 'hardware') =>
  ({
    type: 'template.built',
    vcpus: template.vcpus,
    memory_mib: template.memory_mib,
    kernel: host.kernel.digest,
    cmdline: textDigest(host.cmdline),
    vmm: host.vmm.digest,
    init_root: host.init.verity.root,
    kvm,
    memory: template.memory,
    memory_size: template.memory_size,
    state: template.state,
    state_size: template.state_size,
  }) as const

export const shapeName = (vcpus: number, memoryMib: number): string =>
  `${vcpus} vCPU ${memoryMib} MiB`

const find = (host: HostDescription, shape: Shape): Template | null =>
  host.templates.find((one) => one.vcpus === shape.vcpus && one.memory_mib === shape.memoryMib) ??
  null

export class Templates {
  readonly #ports: Pick<Ports, 'spawn' | 'audit' | 'log'>
  readonly #building = new Map<string, Promise<Template | null>>()
  /** Shapes that spawn is asked for just now, and those of which the last build failed. */
  readonly #pending = new Map<string, 'building' | 'failed'>()

  constructor(ports: Pick<Ports, 'spawn' | 'audit' | 'log'>) {
    this.#ports = ports
  }

  /** Begins with what most launches will want. */
  warm(): void {
    if (DEFAULT_SHAPE !== undefined) void this.get(DEFAULT_SHAPE)
  }

  /** Shapes, as `1 vCPU 128 MiB`, that are being built, and that could not be. */
  get pending(): ReadonlyMap<string, 'building' | 'failed'> {
    return this.#pending
  }

  /** The template of just this shape, built when it is missing; null: boot cold. Never throws. */
  async get(shape: Shape): Promise<Template | null> {
    const inCatalogue = CATALOGUE.some(
      (one) => one.vcpus === shape.vcpus && one.memoryMib === shape.memoryMib,
    )
    if (!inCatalogue) return null
    const key = `${shape.vcpus}x${shape.memoryMib}`
    const building = this.#building.get(key)
    if (building !== undefined) return await building
    const fresh = this.#build(shape)
    this.#building.set(key, fresh)
    const found = await fresh
    // Spawn keeps what it built, and is asked again: it may have been started anew meanwhile.
    if (found !== null) this.#building.delete(key)
    else setTimeout(() => this.#building.delete(key), RETRY_MS).unref()
    return found
  }

  async #build(shape: Shape): Promise<Template | null> {
    const { spawn, audit, log } = this.#ports
    const name = shapeName(shape.vcpus, shape.memoryMib)
    try {
      const host = await spawn.describe()
      const known = find(host, shape)
      const { kvm } = host
      const usable = kvm === 'hardware' || (kvm === 'software' && host.allow_software_kvm)
      if (known !== null || !usable) return known
      this.#pending.set(name, 'building')
      const template = await spawn.template(shape.vcpus, shape.memoryMib)
      this.#pending.delete(name)
      await audit.append(record(template, host, kvm))
      log.info(shape, 'template built')
      return template
    } catch (error) {
      if (this.#pending.has(name)) this.#pending.set(name, 'failed')
      log.warn({ err: error, ...shape }, 'no template: this shape boots cold')
      return null
    }
  }
}
