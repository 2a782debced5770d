/** A launch that is allowed, to be changed in one point per test. */
import { generateKeyPairSync, randomBytes } from 'node:crypto'
import type { Evidence } from '../../policy/evidence.ts'
import {
  type ActivePolicies,
  activatePolicies,
  DEFAULT_POLICIES,
  type Digest,
  type HostFacts,
  type ImageFacts,
  type ImageRule,
  type LaunchQuestion,
  type LaunchRequest,
  NO_NETWORK,
  type PodId,
  type PolicyTexts,
  parseDigest,
  parseImageRule,
  parsePodId,
  parseTenantId,
  type TenantFacts,
  type TenantId,
} from '../../policy/index.ts'

export const acme: TenantId = parseTenantId('acme')
export const pod: PodId = parsePodId('0193b5a0-7e4c-7abc-8def-0123456789ab')
export const imageDigest: Digest = parseDigest(`sha256:${'a'.repeat(64)}`)

export const newPem = (): string =>
  generateKeyPairSync('ec', { namedCurve: 'P-256' })
    .publicKey.export({ type: 'spki', format: 'pem' })
    .toString()

export interface NamedKey {
  readonly id: string
  readonly pem: string
}
export const key: NamedKey = { id: 'release', pem: newPem() }
export const authority = (
  keys: readonly NamedKey[],
  identityMatch = 'exactRepository',
): Record<string, unknown> => ({ type: 'cosign-key', keys, transparency: 'none', identityMatch })

export const document = (
  rules: unknown = [
    {
      name: 'prod',
      match: ['registry.example.com/acme/**'],
      require: { all: [{ anyOf: [authority([key])], threshold: 1 }] },
    },
  ],
): Record<string, unknown> => ({ schemaVersion: 1, default: 'deny', rules })

export const ruleOf = (value: unknown): ImageRule => parseImageRule(JSON.stringify(value))
export const imageRule: ImageRule = ruleOf(document())
export const keyIdOf = (rule: ImageRule): string =>
  rule.rules[0]?.all[0]?.anyOf[0]?.keys[0]?.keyId ?? ''

export const evidence = (changes: Partial<Evidence> = {}): Evidence => ({
  kind: 'cosign-key',
  keyId: keyIdOf(imageRule),
  form: 'tag',
  digest: imageDigest,
  identity: 'registry.example.com/acme/web',
  artifact: `sha256:${randomBytes(32).toString('hex')}`,
  verified: true,
  reason: 'verified',
  ...changes,
})

export const tenant = (changes: Partial<TenantFacts> = {}): TenantFacts => ({
  id: acme,
  trust: 'untrusted',
  suspended: false,
  imageRule,
  quotas: {
    vcpus: { used: 0, limit: 4 },
    memoryMib: { used: 0, limit: 1024 },
    pods: { used: 0, limit: 4 },
  },
  egress: null,
  ports: [],
  ...changes,
})

export const request = (changes: Partial<LaunchRequest> = {}): LaunchRequest => ({
  pod,
  principal: { kind: 'tenant', tenant: acme, subject: 'acme/ci' },
  isolation: null,
  vcpus: null,
  memoryMib: null,
  hostname: null,
  entrypoint: null,
  args: null,
  env: null,
  cwd: null,
  user: null,
  capabilitiesAdd: [],
  capabilitiesDrop: [],
  readOnlyRoot: false,
  network: NO_NETWORK,
  egress: null,
  nameservers: null,
  search: null,
  hosts: [],
  ulimits: [],
  additionalGids: [],
  mounts: [],
  files: [],
  sysctls: [],
  health: null,
  stopSignal: null,
  stopTimeoutMs: null,
  publish: [],
  ...changes,
})

export const image = (changes: Partial<ImageFacts> = {}): ImageFacts => ({
  reference: 'registry.example.com/acme/web:1',
  resolved: { registry: 'registry.example.com', repository: 'acme/web', digest: imageDigest },
  config: {
    entrypoint: ['/bin/web'],
    cmd: ['--port', '80'],
    env: ['A=1'],
    workingDir: '',
    user: '',
    stopSignal: null,
    volumes: [],
    healthcheck: null,
  },
  evidence: [evidence()],
  ...changes,
})

export const host = (changes: Partial<HostFacts> = {}): HostFacts => ({
  kvm: 'hardware',
  kvmReason: null,
  allowSoftwareKvm: false,
  findings: { digest: parseDigest(`sha256:${'f'.repeat(64)}`), findings: [] },
  exceptions: [],
  levels: {},
  hostPaths: {},
  launchers: ['vm'],
  resolver: { nameservers: [], options: [], search: [] },
  imageFloor: null,
  ...changes,
})

export const question = (changes: Partial<LaunchQuestion> = {}): LaunchQuestion => ({
  tenant: tenant(),
  request: request(),
  image: image(),
  files: [],
  host: host(),
  ...changes,
})

/** The shipped policies with some added or replaced. */
export const policiesWith = (texts: PolicyTexts): ActivePolicies =>
  activatePolicies({ ...DEFAULT_POLICIES, ...texts })

export const defaults: ActivePolicies = activatePolicies(DEFAULT_POLICIES)
