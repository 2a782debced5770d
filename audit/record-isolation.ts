/** What a launch runs on, as its record has it: a virtual machine or, at the levels below, a container. */
import type { Digest, KvmClass, Level } from './record-facts.ts'

/** What a launch runs on; with the spec's digest it says exactly what was to start. */
export type IsolationFacts = MachineFacts | ContainerFacts

/** Level vm. */
export type MachineFacts = {
  readonly level: 'vm'
  readonly kvm: KvmClass
  readonly requested: Level | null
  readonly vmm: Digest
  readonly filters: { readonly control: Digest; readonly io: Digest; readonly vcpu: Digest }
  readonly kernel: Digest
  /** Digest of the kernel command line's bytes. */
  readonly cmdline: Digest
  /** dm-verity root of the init disk, hex. */
  readonly init_root: string
  readonly template: { readonly memory: Digest; readonly state: Digest } | null
}

/** The levels below. */
export type ContainerFacts = {
  readonly level: Exclude<Level, 'vm'>
  readonly kvm: null
  readonly requested: Level | null
  /** As a whole, and not block by block as it is read. */
  readonly image_hashed: 'when attached'
  /** What runs the container, what it has the OCI runtime make, and that runtime. */
  readonly monitor: Digest
  readonly bundle: Digest
  readonly runtime: Digest
}
