/** What apps of tests are told to do, and what they say. */
import type { FoundFile } from '../../agent/tasks/launch-files.ts'
import {
  type Capability,
  type IsolationLevel,
  UNTRUSTED_DEFAULT_CAPABILITIES,
} from '../../policy/index.ts'
import { HOST_LEVEL_CAPABILITIES } from '../../policy/nouns/capability.ts'

/** Of an app whose test asks for no others. */
export const ordinaryCapabilities = (level: IsolationLevel): readonly Capability[] =>
  level === 'host' ? HOST_LEVEL_CAPABILITIES : UNTRUSTED_DEFAULT_CAPABILITIES

/** A script for /bin/sh; each program it starts costs seconds where KVM is software. */
export const sh = (script: string): readonly string[] => ['/bin/sh', '-c', script]

/** Words for guest/probe.c, which does them one after the other. */
export const probe = (...words: readonly string[]): readonly string[] => ['/bin/probe', ...words]

/** Lines `name value` by name; the last of a name counts. */
export const facts = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text.split('\n').map((line) => {
      const [name = '', ...rest] = line.trim().split(/\s+/u)
      return [name, rest.join(' ')] as const
    }),
  )

/** A file of a launch with this content. */
export const foundFile = (content: Uint8Array): FoundFile => ({
  stored: null,
  size: content.length,
  open: () => Promise.resolve(content),
})
