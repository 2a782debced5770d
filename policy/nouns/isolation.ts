/** How strongly a pod is isolated, and what kind of KVM the host has for it. */
import { BadNoun } from './brand.ts'

/** In ascending order of strength. The order is the meaning: see strongestFirst. */
export const ISOLATION_LEVELS = ['host', 'container', 'vm'] as const
export type IsolationLevel = (typeof ISOLATION_LEVELS)[number]

/** The levels, the strongest first: the order in which a launch without a request tries them. */
export const STRONGEST_FIRST: readonly IsolationLevel[] = ISOLATION_LEVELS.toReversed()

const isIsolationLevel = (input: unknown): input is IsolationLevel =>
  ISOLATION_LEVELS.some((level) => level === input)

/** @throws BadNoun */
export function parseIsolationLevel(input: unknown): IsolationLevel {
  if (isIsolationLevel(input)) return input
  throw new BadNoun('isolation level', `must be one of ${ISOLATION_LEVELS.join(', ')}`)
}

/**
 * `hardware` is VMX or SVM with nested paging and nesting off. `software` counts as no KVM at all
 * unless root set allow_software_kvm.
 */
export const KVM_CLASSES = ['software', 'hardware'] as const
export type KvmClass = (typeof KVM_CLASSES)[number]

const isKvmClass = (input: unknown): input is KvmClass => KVM_CLASSES.some((kvm) => kvm === input)

/** @throws BadNoun */
export function parseKvmClass(input: unknown): KvmClass {
  if (isKvmClass(input)) return input
  throw new BadNoun('kvm class', `must be one of ${KVM_CLASSES.join(', ')}`)
}
