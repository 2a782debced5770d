/**
 * Which pods stand still. Spawn knows it; the agent remembers what spawn told it, so that a list of
 * pods costs spawn nothing. Every few seconds the sweep brings what spawn has.
 */
import type { PodStatus } from '../../native/spawn-answers.ts'

export class Pauses {
  #paused: ReadonlySet<string> = new Set()
  #changes = 0

  has(pod: string): boolean {
    return this.#paused.has(pod)
  }

  /** Spawn took the request. */
  note(pod: string, paused: boolean): void {
    this.#changes += 1
    const others = [...this.#paused].filter((one) => one !== pod)
    this.#paused = new Set(paused ? [...others, pod] : others)
  }

  /** Passes the list of spawn on, and believes it, unless something was changed while it was on its way. */
  async look(list: () => Promise<readonly PodStatus[]>): Promise<readonly PodStatus[]> {
    const before = this.#changes
    const statuses = await list()
    if (this.#changes === before) {
      this.#paused = new Set(statuses.filter((one) => one.paused).map((one) => one.pod))
    }
    return statuses
  }
}
