/** The image's configuration (image-spec config.md): its layers' content, and what process to start. */
import type { Digest, ImageConfig, ImageHealthcheck } from '../../policy/index.ts'
import {
  digestOf,
  invalid,
  listOf,
  type Members,
  objectOf,
  optionalStringOf,
  parseDocument,
  sizeOf,
  stringsOf,
} from './document.ts'
import { ImageError } from './errors.ts'
import { CONFIG_BYTES_MAX, LAYERS_MAX } from './limits.ts'
import { PLATFORM } from './manifest.ts'

/** Process facts as the image says them; policy parses them into something that can run. */
export type ProcessFacts = ImageConfig

export interface ParsedConfig {
  readonly process: ProcessFacts
  /** Digests of the layers unpacked, lowest first. */
  readonly diffIds: readonly Digest[]
}

/** More than anything that starts could have; policy has the real limits. */
const STRINGS_MAX = 10_000
/** More than a pod has mounts. */
const VOLUMES_MAX = 1000
const CONFIG_MEMBERS = [
  'Entrypoint',
  'Cmd',
  'Env',
  'WorkingDir',
  'User',
  'StopSignal',
  'Healthcheck',
  'Shell',
  'Volumes',
]
const HEALTH_MEMBERS = ['Test', 'Interval', 'Timeout', 'StartPeriod', 'StartInterval', 'Retries']

/** Keys of an object whose values say nothing (image-spec config.md). */
function volumesOf(value: Members[string] | undefined): readonly string[] {
  if (value === undefined || value === null) return []
  return listOf(Object.keys(objectOf(value, 'Volumes', [])), 'Volumes', VOLUMES_MAX).map(String)
}

/** Docker's members of an image-spec config, which names no health check of its own. */
function healthcheckOf(config: Members): ImageHealthcheck | null {
  const value = config['Healthcheck']
  if (value === undefined || value === null) return null
  const check = objectOf(value, 'Healthcheck', HEALTH_MEMBERS)
  const number = (name: string): number => sizeOf(check[name] ?? 0, name)
  return {
    test: stringsOf(check['Test'], 'Test', STRINGS_MAX),
    shell: stringsOf(config['Shell'], 'Shell', STRINGS_MAX),
    times: {
      intervalMs: number('Interval'),
      timeoutMs: number('Timeout'),
      startPeriodMs: number('StartPeriod'),
      startIntervalMs: number('StartInterval'),
      retries: number('Retries'),
    },
  }
}

function processOf(document: Members): ProcessFacts {
  const value = document['config']
  const config =
    value === undefined || value === null
      ? objectOf({}, 'config', [])
      : objectOf(value, 'config', CONFIG_MEMBERS)
  return {
    entrypoint: stringsOf(config['Entrypoint'], 'Entrypoint', STRINGS_MAX),
    cmd: stringsOf(config['Cmd'], 'Cmd', STRINGS_MAX),
    env: stringsOf(config['Env'], 'Env', STRINGS_MAX),
    workingDir: optionalStringOf(config['WorkingDir'], 'WorkingDir') ?? '',
    user: optionalStringOf(config['User'], 'User') ?? '',
    stopSignal: optionalStringOf(config['StopSignal'], 'StopSignal'),
    volumes: volumesOf(config['Volumes']),
    healthcheck: healthcheckOf(config),
  }
}

/**
 * @param layers how many the manifest has; the configuration must speak of each
 * @throws ImageError
 */
export function parseConfig(bytes: Uint8Array, layers: number): ParsedConfig {
  const known = ['os', 'architecture', 'config', 'rootfs']
  const document = parseDocument(bytes, CONFIG_BYTES_MAX, 'the configuration', known)
  if (document['os'] !== PLATFORM.os || document['architecture'] !== PLATFORM.architecture) {
    throw new ImageError('IMAGE_PLATFORM_MISSING', 'The image is not for linux/amd64.')
  }
  const rootfs = objectOf(document['rootfs'], 'rootfs', ['type', 'diff_ids'])
  if (rootfs['type'] !== 'layers') throw invalid('the type of rootfs is not layers')
  const diffIds = listOf(rootfs['diff_ids'], 'diff_ids', LAYERS_MAX).map((value) =>
    digestOf(value, 'a diff_id'),
  )
  if (diffIds.length !== layers) {
    throw invalid(`the configuration speaks of ${diffIds.length} layers, the manifest of ${layers}`)
  }
  return { process: processOf(document), diffIds }
}
