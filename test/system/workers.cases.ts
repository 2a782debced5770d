/** The real workers as spawn starts them: Node under the filters of spawn and of workers, in their jail. */
import assert from 'node:assert/strict'
import { closeSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { before, suite, type TestContext, test } from 'node:test'
import { seccompCompiler } from '../../native/seccomp/compile.ts'
import { defaultSeccompProfile } from '../../native/seccomp/default-profile.ts'
import type { SpawnClient } from '../../native/spawn-client.ts'
import { type LayerPacking, REQUEST_VERSION } from '../../native/workers/rootfs/request.ts'
import { canonicalBytes } from '../../policy/canonical.ts'
import {
  buildPacked,
  LIMITS,
  type PackedLayer,
  pack,
} from '../native/workers/rootfs/build-image.ts'
import type { Machine } from './harness.ts'
import { busyboxTar } from './images.ts'

const root = path.resolve(import.meta.dirname, '../..')
const WORKER_MS = 60_000
const OUTPUT_BYTES_MAX = 1 << 26

/** The first folder on the way to `file` that other users may not enter, or null. */
function closed(file: string): string | null {
  const parts = file.split('/').slice(1, -1)
  const folders = parts.map((_, at) => `/${parts.slice(0, at + 1).join('/')}`)
  return folders.find((folder) => (statSync(folder).mode & 0o001) === 0) ?? null
}

/** Answer and image of a build by spawn's worker. */
async function built(machine: Machine, spawn: SpawnClient, name: string, layer: PackedLayer) {
  const place = machine.place(name)
  writeFileSync(`${place}.layer`, layer.bytes)
  writeFileSync(place, '')
  const fds = [openSync(place, 'r+'), openSync(`${place}.layer`, 'r')]
  try {
    const request = { v: REQUEST_VERSION, layers: [{ ...layer.layer }], limits: { ...LIMITS } }
    const bytes = await spawn.worker({
      kind: 'rootfs',
      request: canonicalBytes(request),
      fds,
      fileBytes: OUTPUT_BYTES_MAX,
      timeoutMs: WORKER_MS,
    })
    return { answer: JSON.parse(bytes.toString('utf8')) as unknown, bytes: readFileSync(place) }
  } finally {
    for (const fd of fds) closeSync(fd)
  }
}

export function workerCases(machine: Machine): void {
  suite('system/workers', () => {
    let spawn: SpawnClient
    const script = (kind: string) => path.join(root, `native/workers/${kind}/main.ts`)
    const barrier = closed(script('rootfs')) ?? closed(process.execPath)
    const skipped = (t: TestContext): boolean => {
      if (barrier !== null) t.skip(`the workers’ user may not enter ${barrier}`)
      return barrier !== null
    }
    before(async () => {
      const worker = (kind: string) => [process.execPath, script(kind)]
      const workers = { rootfs: worker('rootfs'), seccomp: worker('seccomp') }
      const host = await machine.another('with-workers', { workers })
      ;({ spawn } = host)
    })

    for (const packing of ['none', 'gzip', 'zstd'] satisfies LayerPacking[]) {
      test(`build the same image from a layer (${packing}) as without a jail`, async (t) => {
        if (skipped(t)) return
        const layer = pack(busyboxTar('/bin/busybox'), packing)
        const [jailed, free] = [
          await built(machine, spawn, `jailed-${packing}`, layer),
          await buildPacked([layer]),
        ]
        assert.deepEqual(jailed.answer, free.answer)
        assert.ok(jailed.bytes.equals(free.bytes))
      })
    }

    test('compile the same program from a profile as without a jail', async (t) => {
      if (skipped(t)) return
      const profile = defaultSeccompProfile([])
      assert.deepEqual(await seccompCompiler(spawn)(profile), await machine.seccomp(profile))
    })
  })
}
