/** What a pod has on the agent's disk: its log, and its scratch while it runs. */
import { access, type FileHandle, mkdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { createPodLog } from '../native/pod-log.ts'
import { createScratch, type ScratchTemplate } from '../native/scratch.ts'
import type { PodId } from '../policy/index.ts'

/** The two descriptors that a launch hands to spawn. */
export interface OpenPodFiles {
  readonly log: FileHandle
  readonly scratch: FileHandle
  close(): Promise<void>
}

export class PodFiles {
  readonly #directory: string
  readonly #template: ScratchTemplate

  /** @param directory private to the agent; made when needed */
  constructor(directory: string, template: ScratchTemplate) {
    this.#directory = directory
    this.#template = template
  }

  get directory(): string {
    return this.#directory
  }

  /** Size and block digest of every scratch, for the spec. */
  get scratch(): { readonly size: number; readonly digest: string } {
    return this.#template
  }

  #place(pod: PodId, name = ''): string {
    return path.join(this.#directory, pod, name)
  }

  logPath(pod: PodId): string {
    return this.#place(pod, 'log')
  }

  async hasLog(pod: PodId): Promise<boolean> {
    return await access(this.logPath(pod)).then(
      () => true,
      () => false,
    )
  }

  /** Fresh files for a launch, open. */
  async create(pod: PodId, logBytes: number): Promise<OpenPodFiles> {
    await mkdir(this.#place(pod), { recursive: true, mode: 0o700 })
    const log = await createPodLog(this.logPath(pod), logBytes)
    try {
      const scratch = await createScratch(this.#place(pod, 'scratch'), this.#template)
      const close = async (): Promise<void> => {
        await Promise.all([log.close(), scratch.close()])
      }
      return { log, scratch, close }
    } catch (cause) {
      await log.close()
      throw cause
    }
  }

  /** The pod has ended: what it wrote to its disk goes, what it said stays. */
  async dropScratch(pod: PodId): Promise<void> {
    await rm(this.#place(pod, 'scratch'), { force: true })
  }

  async remove(pod: PodId): Promise<void> {
    await rm(this.#place(pod), { recursive: true, force: true })
  }
}
