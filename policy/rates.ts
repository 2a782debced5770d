/**
 * How fast a pod's devices are, so that one tenant cannot have a host's disks for itself. They are
 * far above what an ordinary service does, and a program that starts has its first reads at once.
 */
import type { DeviceRates, NetworkRates, TokenBucket } from './plan.ts'

const MIB = 1_048_576

/** A second's worth at any time, and `burst` once. */
const perSecond = (refill: number, burst = 0): TokenBucket => ({ capacity: refill, burst, refill })

/** A card's: a gigabit, which a host of ten shares among many; small packets cost by their number. */
export const NETWORK_RATES: NetworkRates = {
  receive: { operations: perSecond(200_000), bytes: perSecond(128 * MIB) },
  transmit: { operations: perSecond(200_000), bytes: perSecond(128 * MIB) },
}

export const DEVICE_RATES: DeviceRates = {
  diskRead: { operations: perSecond(20_000, 20_000), bytes: perSecond(512 * MIB, 512 * MIB) },
  diskWrite: { operations: perSecond(10_000), bytes: perSecond(256 * MIB) },
  // A generator that seeds others needs bytes, not a stream: each call costs the host a hash.
  rng: { operations: perSecond(1000), bytes: perSecond(MIB) },
}
