/**
 * What a VMM counts, by name, in the order of native/wire/src/metrics.rs; docs/formats.md section 6
 * says what each is. The names are part of the API, so spawn's answer has these and no others.
 */

export const MACHINE_COUNTERS = [
  'exits_mmio',
  'exits_port',
  'exits_other',
  'refused_msrs',
  'stray_accesses',
] as const

export const DEVICE_COUNTERS = [
  'requests',
  'interrupts',
  'bytes_to_guest',
  'bytes_from_guest',
  'io_errors',
  'verity_failures',
  'unsupported_requests',
  'invalid_queues',
  'ignored_notifications',
  'bad_accesses',
  'frozen_writes',
  'bad_status_writes',
  'bad_control_messages',
  'throttled_ns',
  'dropped_malformed',
  'dropped_mac',
  'dropped_address',
  'dropped_protocol',
  'dropped_receive',
] as const

export const DEVICES = [
  'init',
  'image',
  'scratch',
  'console',
  'rng',
  'net',
  'balloon',
  'volume1',
  'volume2',
  'volume3',
  'volume4',
] as const

/** What spawn reads of the kernel about a VM, and how large its disk is; null where nobody counts it. */
export const USAGE = [
  'cpu_us',
  'cpu_throttled_us',
  'memory_bytes',
  'memory_peak_bytes',
  'scratch_bytes',
  'scratch_used_bytes',
  'tasks',
] as const

export type Usage = Readonly<Record<(typeof USAGE)[number], number | null>>
