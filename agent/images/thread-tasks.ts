/**
 * Work that may take long on bytes of strangers. Each is a pure function of plain data; run.ts calls
 * it here for small inputs and in a thread, with a deadline, for others.
 */
import { type ParsedConfig, parseConfig } from './config.ts'
import type { Descriptor } from './descriptor.ts'
import { chooseFromIndex, type Manifest, parseManifest } from './manifest.ts'
import { type Recomputed, type RecomputeInput, recompute } from './recompute.ts'
import { type CheckInput, checkSignatures } from './signatures/check.ts'
import type { CheckedSignature } from './signatures/found.ts'

export interface DocumentInput {
  readonly bytes: Uint8Array
  readonly contentType: string
}

export interface ConfigInput {
  readonly bytes: Uint8Array
  readonly layers: number
}

interface Inputs {
  readonly checkSignatures: CheckInput
  readonly chooseFromIndex: DocumentInput
  readonly parseManifest: DocumentInput
  readonly parseConfig: ConfigInput
  readonly recompute: RecomputeInput
}

interface Results {
  readonly checkSignatures: readonly CheckedSignature[]
  readonly chooseFromIndex: Descriptor
  readonly parseManifest: Manifest
  readonly parseConfig: ParsedConfig
  readonly recompute: Recomputed
}

export type TaskName = keyof Inputs
export type TaskInput<Name extends TaskName> = Inputs[Name]
export type TaskResult<Name extends TaskName> = Results[Name]

export const TASKS: {
  readonly [Name in TaskName]: (input: TaskInput<Name>) => TaskResult<Name>
} = {
  checkSignatures,
  chooseFromIndex: ({ bytes, contentType }) => chooseFromIndex(bytes, contentType),
  parseManifest: ({ bytes, contentType }) => parseManifest(bytes, contentType),
  parseConfig: ({ bytes, layers }) => parseConfig(bytes, layers),
  recompute,
}

/** How a thread reports: results and errors as plain data. */
export type ThreadReport =
  | { readonly ok: true; readonly result: unknown }
  | { readonly ok: false; readonly code: string; readonly message: string }
