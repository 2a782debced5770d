/**
 * The questions every policy set is asked before it is activated: all combinations of trust, level,
 * signature, suspension and caller. What must never be allowed must be denied, and nothing may error.
 */

import { UNTRUSTED_DEFAULT_CAPABILITIES } from '../nouns/capability.ts'
import { parseDigest } from '../nouns/digest.ts'
import { parseFileName } from '../nouns/file.ts'
import { ISOLATION_LEVELS, type IsolationLevel } from '../nouns/isolation.ts'
import {
  MEMORY_MIB_MAX,
  MEMORY_MIB_MIN,
  parseMemoryMib,
  parseVcpus,
  VCPUS_MAX,
  VCPUS_MIN,
} from '../nouns/machine.ts'
import { parsePodId } from '../nouns/pod.ts'
import { parseTenantId, TRUSTS, type Trust } from '../nouns/tenant.ts'
import { parseVolumeName, VOLUME_BYTES_MAX, VOLUME_OPERATIONS } from '../nouns/volume.ts'
import {
  type ExecQuery,
  FILE_ACTIONS,
  type FileQuery,
  type LaunchQuery,
  type Principal,
  type VolumeQuery,
} from './query.ts'

export interface CannedQuestion {
  readonly name: string
  readonly query: LaunchQuery
  readonly mustDeny: boolean
}

const tenant = parseTenantId('canned-tenant')
const stranger = parseTenantId('canned-stranger')
const pod = parsePodId('01900000-0000-7000-8000-000000000000')
const digest = parseDigest(`sha256:${'0'.repeat(64)}`)
const image = { registry: 'registry.example.com', repository: 'canned/image', digest }

const callers: Readonly<Record<string, Principal>> = {
  'own caller': { kind: 'tenant', tenant, subject: 'canned-tenant/caller' },
  'caller of another tenant': {
    kind: 'tenant',
    tenant: stranger,
    subject: 'canned-stranger/caller',
  },
  operator: { kind: 'operator', uid: 0 },
}

interface Case {
  readonly who: string
  readonly principal: Principal
  readonly trust: Trust
  readonly isolation: IsolationLevel
  /** 0 nothing wrong, 1 image unsigned, 2 tenant suspended. */
  readonly fault: (typeof FAULTS)[number]
}

const FAULTS = ['signed', 'unsigned', 'suspended'] as const

const questionOf = ({ who, principal, trust, isolation, fault }: Case): CannedQuestion => {
  const large = isolation !== 'container'
  return {
    name: `${who}, ${trust} tenant, level ${isolation}, ${fault}`,
    mustDeny:
      fault !== 'signed' ||
      (trust !== 'trusted' && isolation !== 'vm') ||
      (principal.kind === 'tenant' && principal.tenant !== tenant),
    query: {
      principal,
      tenant: {
        id: tenant,
        trust,
        suspended: fault === 'suspended',
        levels: ['host', 'container'],
      },
      pod,
      isolation,
      image,
      signature: {
        accepted: fault !== 'unsigned',
        keyIds: fault === 'unsigned' ? [] : [digest],
      },
      capabilities: UNTRUSTED_DEFAULT_CAPABILITIES,
      // Both ends of the ranges, so that arithmetic in a policy shows an overflow here.
      vcpus: parseVcpus(large ? VCPUS_MAX : VCPUS_MIN),
      memoryMib: parseMemoryMib(large ? MEMORY_MIB_MAX : MEMORY_MIB_MIN),
      readOnlyRoot: large,
      sysctls: [],
      files: [],
    },
  }
}

export interface CannedExec {
  readonly name: string
  readonly query: ExecQuery
  readonly mustDeny: boolean
}

/** The same for one more process in a pod: no stranger's, none of a suspended tenant. */
export function cannedExecs(): readonly CannedExec[] {
  return Object.entries(callers).flatMap(([who, principal]) =>
    TRUSTS.flatMap((trust) =>
      [false, true].map((suspended) => ({
        name: `${who} executes, ${trust} tenant${suspended ? ', suspended' : ''}`,
        mustDeny: suspended || (principal.kind === 'tenant' && principal.tenant !== tenant),
        query: {
          principal,
          tenant: { id: tenant, trust, suspended },
          pod,
          program: suspended ? '' : '/bin/sh',
          errand: suspended ? 'copy-out' : '',
          user: suspended ? '' : '0',
          terminal: suspended,
        },
      })),
    ),
  )
}

export interface CannedFile {
  readonly name: string
  readonly query: FileQuery
  readonly mustDeny: boolean
}

/** And for what tenants keep here: no stranger's, nothing stored or shown for a suspended tenant. */
export function cannedFiles(): readonly CannedFile[] {
  return Object.entries(callers).flatMap(([who, principal]) =>
    FILE_ACTIONS.flatMap((action) =>
      [false, true].map((suspended) => ({
        name: `${who}, ${action}${suspended ? ', suspended tenant' : ''}`,
        mustDeny:
          (suspended && action !== 'remove_file') ||
          (principal.kind === 'tenant' && principal.tenant !== tenant),
        query: {
          principal,
          tenant: { id: tenant, trust: 'untrusted', suspended },
          action,
          kind: suspended ? 'config' : 'secret',
          name: parseFileName('key'),
        },
      })),
    ),
  )
}

export interface CannedVolume {
  readonly name: string
  readonly query: VolumeQuery
  readonly mustDeny: boolean
}

/** The same for volumes: none of a stranger's. Operators may clear away what a suspended tenant has. */
export function cannedVolumes(): readonly CannedVolume[] {
  return Object.entries(callers).flatMap(([who, principal]) =>
    [false, true].flatMap((suspended) =>
      VOLUME_OPERATIONS.map((operation) => ({
        name: `${who}: ${operation} a volume${suspended ? ', tenant suspended' : ''}`,
        mustDeny: principal.kind === 'tenant' && (suspended || principal.tenant !== tenant),
        query: {
          principal,
          tenant: { id: tenant, trust: TRUSTS[0], suspended },
          volume: parseVolumeName('canned'),
          operation,
          sizeBytes: operation === 'create' || operation === 'grow' ? VOLUME_BYTES_MAX : 0,
        },
      })),
    ),
  )
}

/** All of them; about eighty, each under a millisecond. */
export function cannedQuestions(): readonly CannedQuestion[] {
  return Object.entries(callers).flatMap(([who, principal]) =>
    TRUSTS.flatMap((trust) =>
      ISOLATION_LEVELS.flatMap((isolation) =>
        FAULTS.map((fault) => questionOf({ who, principal, trust, isolation, fault })),
      ),
    ),
  )
}
