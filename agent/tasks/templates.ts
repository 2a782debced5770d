/**
 * Templates: each shape of the catalogue is built once, by spawn, when it is first wanted. One that
 * spawn has already, from before this agent or on its disk, is taken as it is. Either way it goes on
 * record before the first launch from it. A launch of that shape waits for the build: a cold boot
 * beside it would take the same CPU for longer.
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

const factsOf = (template: Template, host: HostDescription, kvm: 'software' | 'hardware') =>
  ({
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
  /** State digests of the templates this agent has put on record. */
  readonly #onRecord = new Set<string>()

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
    const name = shapeName(shape.vcpus, shape.memoryMib)
    const building = this.#building.get(name)
    if (building !== undefined) return await building
    const fresh = this.#build(shape, name)
    this.#building.set(name, fresh)
    const found = await fresh
    // Spawn keeps what it built, and is asked again: it may have been started anew meanwhile.
    if (this.#pending.get(name) !== 'failed') this.#building.delete(name)
    else setTimeout(() => this.#building.delete(name), RETRY_MS).unref()
    return found
  }

  async #build(shape: Shape, name: string): Promise<Template | null> {
    const { spawn, log } = this.#ports
    try {
      const host = await spawn.describe()
      const { kvm } = host
      if (kvm === null || (kvm === 'software' && !host.allow_software_kvm)) return null
      const found = find(host, shape)
      if (found !== null) return await this.#recorded('template.kept', found, host, kvm)
      this.#pending.set(name, 'building')
      const { template, kept } = await spawn.template(shape.vcpus, shape.memoryMib)
      this.#pending.delete(name)
      const type = kept ? 'template.kept' : 'template.built'
      return await this.#recorded(type, template, host, kvm)
    } catch (error) {
      if (this.#pending.has(name)) this.#pending.set(name, 'failed')
      log.warn({ err: error, ...shape }, 'no template: this shape boots cold')
      return null
    }
  }

  /** Puts it on record, once for as long as this agent runs. */
  async #recorded(
    type: 'template.built' | 'template.kept',
    template: Template,
    host: HostDescription,
    kvm: 'software' | 'hardware',
  ): Promise<Template> {
    if (this.#onRecord.has(template.state)) return template
    await this.#ports.audit.append({ type, ...factsOf(template, host, kvm) })
    this.#onRecord.add(template.state)
    this.#ports.log.info({ state: template.state }, type)
    return template
  }
}
