/**
 * How running pods are, in the words of their VMMs. Nothing of it is in the store: a VMM repeats its last word to each
 * new stream, so an agent that was started anew learns it all again, with the times at which states began.
 */
import { EventEmitter } from 'node:events'
import type { PodHealth } from '../../native/pod-health.ts'
import type { PodId } from '../../policy/index.ts'
import type { TenantScope } from '../../tenants/index.ts'

interface Entry {
  health: PodHealth
  /** Its longest time of health that is over, ms. */
  wellMs: number
}

interface HealthEvents {
  /** A pod is unhealthy: it has just become so, or an agent has just learnt of it. */
  unhealthy: [TenantScope, PodId]
}

export class HealthBook extends EventEmitter<HealthEvents> {
  readonly #known = new Map<PodId, Entry>()
  readonly #changed = new Map<PodId, AbortController>()

  hear(scope: TenantScope, pod: PodId, health: PodHealth): void {
    const before = this.#known.get(pod)
    this.#known.set(pod, { health, wellMs: before === undefined ? 0 : wellOf(before, health) })
    if (before?.health.state === health.state) return
    this.#tell(pod)
    if (health.state === 'unhealthy') this.emit('unhealthy', scope, pod)
  }

  /** Its last word; null: it said none, or has ended. */
  of(pod: PodId): PodHealth | null {
    return this.#known.get(pod)?.health ?? null
  }

  /** The longest time for which it was healthy without a break, ms. */
  wellMs(pod: PodId, nowMs: number): number {
    const entry = this.#known.get(pod)
    if (entry === undefined) return 0
    const { state, sinceMs } = entry.health
    return Math.max(entry.wellMs, state === 'healthy' ? nowMs - sinceMs : 0)
  }

  /** Aborted when its state is another, or it has ended. */
  changed(pod: PodId): AbortSignal {
    const known = this.#changed.get(pod) ?? new AbortController()
    this.#changed.set(pod, known)
    return known.signal
  }

  /** It has ended. */
  forget(pod: PodId): void {
    this.#known.delete(pod)
    this.#tell(pod)
  }

  #tell(pod: PodId): void {
    this.#changed.get(pod)?.abort()
    this.#changed.delete(pod)
  }
}

function wellOf({ health, wellMs }: Entry, next: PodHealth): number {
  if (health.state !== 'healthy' || next.state === 'healthy') return wellMs
  return Math.max(wellMs, next.sinceMs - health.sinceMs)
}
