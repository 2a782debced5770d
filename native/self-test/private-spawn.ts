/**
 * A casemate-spawn for a self-test, in a folder of its own: nobody's pods are near, it trusts one key
 * that lives as long as the test, and its guests are those that the test names.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { canonicalJson } from '../../policy/canonical.ts'
import type { HostDescription } from '../spawn-answers.ts'
import { type SpawnClient, spawnClient } from '../spawn-client.ts'
import type { Artifacts } from '../up/artifacts.ts'
import { startChild } from '../up/child.ts'

/** Beyond those of `casemate up`; different for tests at the same time, as the kernel counts by user. */
const UID_BASE = 300_000_000
const UIDS = 4
const WORKER_UID = UID_BASE - 1

export interface PrivateSpawn {
  readonly client: SpawnClient
  readonly host: HostDescription
  end(): Promise<void>
}

export interface PrivatePlan {
  /** Made here, and the caller's to remove. */
  readonly directory: string
  readonly node: string
  readonly artifacts: Artifacts
  /** In place of the host's own. */
  readonly kernel: string
  /** Where templates are kept; in `directory` if it is left out, so that one is built. */
  readonly templates?: string
  /** Of the one log whose tickets count. */
  readonly vkey: string
}

function configuration(plan: PrivatePlan): string {
  const { directory, node, artifacts, kernel, vkey } = plan
  return canonicalJson({
    v: 'casemate.spawn/1',
    node,
    log_keys: [vkey],
    // Nothing of a tenant runs here: what is found out is told with the class of KVM.
    allow_software_kvm: true,
    levels: {},
    container: null,
    host_paths: {},
    agent_uid: 0,
    agent_gid: 0,
    worker_uid: WORKER_UID,
    worker_gid: WORKER_UID,
    vm_uid_base: UID_BASE + (process.pid % 1_000_000) * UIDS,
    vm_uid_count: UIDS,
    run_dir: path.join(directory, 'run'),
    state_dir: path.join(directory, 'state'),
    template_dir: plan.templates ?? path.join(directory, 'templates'),
    uplink: null,
    vmm: artifacts.vmm,
    kernel,
    init: artifacts.init,
    init_verity: { ...artifacts.initVerity },
    scratch: { ...artifacts.scratch },
    volume: { ...artifacts.volume },
    workers: {},
  })
}

/** @throws with the last words of a spawn that does not start */
export async function startPrivateSpawn(plan: PrivatePlan): Promise<PrivateSpawn> {
  const { directory, artifacts } = plan
  mkdirSync(directory, { mode: 0o700 })
  const config = path.join(directory, 'spawn.json')
  writeFileSync(config, configuration(plan), { mode: 0o600 })
  const child = await startChild({
    name: 'spawn',
    command: ['setpriv', '--pdeathsig=TERM', '--', artifacts.spawn, '--config', config],
    ready: 'casemate-spawn: ready',
    logFile: path.join(directory, 'spawn.log'),
  })
  const client = spawnClient(path.join(directory, 'run/spawn.sock'))
  try {
    return { client, host: await client.describe(), end: () => child.end() }
  } catch (error) {
    await child.end()
    throw error
  }
}
