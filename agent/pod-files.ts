/** What a pod has on the agent's disk: its log. */
import { access, type FileHandle, mkdir, rm } from 'node:fs/promises'
import path from 'node:path'
import { createPodLog } from '../native/pod-log.ts'
import type { PodId } from '../policy/index.ts'

export class PodFiles {
  readonly #directory: string

  /** @param directory private to the agent; made when needed */
  constructor(directory: string) {
    this.#directory = directory
  }

  get directory(): string {
    return this.#directory
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

  /** A fresh log for a launch, open. */
  async createLog(pod: PodId, bytes: number): Promise<FileHandle> {
    await mkdir(this.#place(pod), { recursive: true, mode: 0o700 })
    return await createPodLog(this.logPath(pod), bytes)
  }

  async remove(pod: PodId): Promise<void> {
    await rm(this.#place(pod), { recursive: true, force: true })
  }
}
