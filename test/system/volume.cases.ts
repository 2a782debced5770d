/** Named volumes: what one pod writes the next one reads, and nobody else, whatever happened in between. */
import assert from 'node:assert/strict'
import { readFileSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { suite, test } from 'node:test'
import { deadlineIn, type RecordBodies, systemClock } from '../../audit/index.ts'
import { SpawnError, type VolumePapers } from '../../native/spawn-client.ts'
import {
  parseMountPath,
  parseSubPath,
  parseVolumeName,
  VOLUME_BYTES_MIN,
} from '../../policy/index.ts'
import type { PlannedMount } from '../../policy/plan.ts'
import { type Machine, TENANT } from './harness.ts'
import { papers, prepare, refusal, run, sh, start, submit } from './launch.ts'

const MIB = 2 ** 20
const NOTHING = `sha256:${'0'.repeat(64)}`
const actor: RecordBodies['volume.intent']['actor'] = {
  sub: 'uid:0',
  kind: 'operator',
  auth: { method: 'unix-peer', iss: null, jti: null, uid: 0, src_ip: null },
}

export interface Order {
  readonly operation: RecordBodies['volume.intent']['operation']
  readonly volume: string
  readonly size_bytes?: number
  readonly snapshot?: string
  readonly tenant?: string
}

/** A record of the order, and its receipt. */
async function volumePapers(machine: Machine, order: Order): Promise<VolumePapers> {
  const { index, bytes } = await machine.log.append({
    type: 'volume.intent',
    tenant: TENANT,
    actor,
    policy: { bundle: NOTHING, decision: 'allow', determining: [], reasons: [] },
    size_bytes: null,
    snapshot: null,
    ...order,
    deadline: deadlineIn(systemClock(), 25_000),
  })
  const record = Buffer.from(bytes).toString('utf8')
  return { ticket: await machine.log.receipt(index), record }
}

/** Has it done. */
export const orderVolume = async (machine: Machine, order: Order): Promise<void> =>
  await machine.spawn.volume(await volumePapers(machine, order))

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => 'ok',
    (error: unknown) => (error instanceof SpawnError ? error.code : String(error)),
  )

export const mountVolume = (
  name: string,
  place = '/data',
  readOnly = false,
  subPath: string | null = null,
): PlannedMount => ({
  kind: 'volume',
  name: parseVolumeName(name),
  path: parseMountPath(place),
  readOnly,
  subPath: subPath === null ? null : parseSubPath(subPath),
})

const listed = async (machine: Machine, name: string) =>
  (await machine.spawn.volumes(TENANT)).find(({ volume }) => volume === name)

/** Every moment in which the kernel may not have let go of a disk yet is spawn's to refuse. */
export async function volumeIsFree(machine: Machine, name: string): Promise<void> {
  // A grow to the same size changes nothing, and wants the disk to itself.
  const order: Order = { operation: 'grow', volume: name, size_bytes: VOLUME_BYTES_MIN }
  for (;;) {
    // oxlint-disable-next-line no-await-in-loop -- until it is free
    const code = await codeOf(orderVolume(machine, order))
    if (code !== 'VOLUME_BUSY' && code !== 'VOLUME_IN_USE') return
  }
}

function ordinary(machine: Machine): void {
  test('keeps what a pod wrote for the next one, which nobody else gets meanwhile', async () => {
    for (const volume of ['data', 'read']) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await orderVolume(machine, { operation: 'create', volume, size_bytes: VOLUME_BYTES_MIN })
    }
    const first = await start(machine, {
      args: sh(`b=/bin/busybox
        $b stat -c 'root %a %u:%g' /data; $b ls -A /data
        echo kept > /data/file; $b chown 7:8 /data/file
        while read _ _ _ _ point rest; do [ "$point" = /data ] && echo "mounted $rest"; done < /proc/self/mountinfo
        (: > /read/file) 2>/dev/null || echo 'cannot write'
        $b fallocate -l ${30 * MIB} /data/half && echo half
        $b fallocate -l ${70 * MIB} /data/full 2>/dev/null || echo full
        $b rm /data/half /data/full; echo wrote; read line`),
      mounts: [mountVolume('data'), mountVolume('read', '/read', true)],
    })
    const said = await first.says(/wrote/u)
    assert.match(said, /^root 755 0:0\nmounted rw,nosuid,nodev,noatime.* ext4 /u)
    assert.match(said, /\ncannot write\nhalf\nfull\nwrote\n/u, 'and no more than it has')
    assert.equal((await listed(machine, 'data'))?.pod, first.pod)
    await refusals(machine)
    first.stream.stdin(Buffer.from('\n'))
    assert.equal((await first.exit()).cause, 'APP_EXIT')
    const marks = [await listed(machine, 'data'), await listed(machine, 'read')]
    const isVm = machine.level === 'vm'
    assert.deepEqual(
      marks.map((status) => status?.machine),
      [isVm, false],
      'one that can only read leaves no mark',
    )
    await volumeIsFree(machine, 'data')
    // Its file system grows as it is mounted; the build machines' root may not do that to the host's kernel.
    const size = isVm ? 512 * MIB : VOLUME_BYTES_MIN
    await orderVolume(machine, { operation: 'grow', volume: 'data', size_bytes: size })
    const room = isVm ? 100 * MIB : 30 * MIB
    const next = await run(machine, {
      args: sh(`b=/bin/busybox; $b stat -c '%u:%g' /data/file; cat /data/file
        $b fallocate -l ${room} /data/more && echo room`),
      mounts: [mountVolume('data')],
      volumeSizes: [size],
    })
    assert.equal(next.stdout, '7:8\nkept\nroom\n', `${next.exit.text} ${next.notes}`)
  })
}

function parts(machine: Machine): void {
  test('gives a part of it, and follows nothing out of it (CVE-2017-1002101, CVE-2021-25741)', async () => {
    await orderVolume(machine, {
      operation: 'create',
      volume: 'parts',
      size_bytes: VOLUME_BYTES_MIN,
    })
    const part = (subPath: string, readOnly = false): PlannedMount =>
      mountVolume('parts', '/part', readOnly, subPath)
    const made = await run(machine, {
      args: sh(`b=/bin/busybox; $b stat -c '%a %u:%g %F' /part; echo in > /part/file
        $b mkfifo /part/fifo; $b ln -s / /part/root; $b ln -s ../../../../../../etc /part/up
        $b ln -s /proc/self/root/etc /part/magic; $b ln -s file /part/link; $b ls -A /part/..| $b grep -c lost`),
      mounts: [part('a/b')],
    })
    assert.match(made.stdout, /^755 0:0 directory\n0\n$/u, `${made.exit.text} ${made.notes}`)
    // The same code; what follows costs a start each.
    if (machine.level === 'vm') return
    await volumeIsFree(machine, 'parts')
    const file = await run(machine, { args: sh('cat /part'), mounts: [part('a/b/file', true)] })
    assert.equal(file.stdout, 'in\n', `${file.exit.text} ${file.notes}`)
    for (const [subPath, readOnly, words] of [
      ['a/b/root', false, 'is a link'],
      ['a/b/root/etc', false, 'is a link'],
      ['a/b/up', true, 'is a link'],
      ['a/b/magic', false, 'is a link'],
      ['a/b/link', false, 'is a link'],
      ['a/b/file/x', false, 'a file is on the way'],
      ['a/b/fifo', false, 'neither a directory nor'],
      ['a/c', true, 'is not there'],
    ] as const) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await volumeIsFree(machine, 'parts')
      // oxlint-disable-next-line no-await-in-loop -- likewise
      const { exit } = await run(machine, {
        args: sh('exit 0'),
        mounts: [part(subPath, readOnly)],
      })
      assert.equal(`${exit.how} ${exit.cause}`, 'failure APP_START', subPath)
      assert.ok((exit.text ?? '').includes(words), `${subPath}: ${exit.text}`)
    }
  })
}

/** While a pod has it. */
async function refusals(machine: Machine): Promise<void> {
  const second = await prepare(machine, { args: sh('exit 0'), mounts: [mountVolume('data')] })
  assert.equal(await refusal(second, await papers(machine, second)), 'VOLUME_IN_USE')
  for (const order of [
    { operation: 'remove' },
    { operation: 'grow', size_bytes: 2 * VOLUME_BYTES_MIN },
    { operation: 'snapshot', snapshot: 'now' },
  ] as const) {
    // oxlint-disable-next-line no-await-in-loop -- one after the other
    const code = await codeOf(orderVolume(machine, { volume: 'data', ...order }))
    assert.equal(code, 'VOLUME_IN_USE', order.operation)
  }
  // By another tenant's name there is no such volume, and no name leads out of a tenant's folder.
  const wish = { args: sh('exit 0'), mounts: [mountVolume('data')], tenant: 'other' }
  const other = await prepare(machine, wish)
  assert.equal(await refusal(other, await papers(machine, other)), 'VOLUME_UNKNOWN')
  const up = await prepare(machine, { ...wish, tenant: TENANT }, (spec) => {
    Object.assign(Object(spec['apps'])[0].mounts[0], { name: `../${TENANT}/data` })
  })
  assert.equal(await refusal(up, await papers(machine, up)), 'SPEC_MALFORMED')
}

function cutOff(machine: Machine): void {
  test('keeps what was synced when its pod is killed as it writes, and can be written on', async () => {
    await orderVolume(machine, {
      operation: 'create',
      volume: 'crash',
      size_bytes: VOLUME_BYTES_MIN,
    })
    const writer = await start(machine, {
      args: sh(`b=/bin/busybox; echo synced > /data/file; $b sync; echo synced
        while :; do $b dd if=/dev/zero of=/data/more bs=4096 count=64 conv=fsync 2>/dev/null; $b rm /data/more; done`),
      mounts: [mountVolume('crash')],
    })
    await writer.says(/synced/u)
    await machine.spawn.kill(writer.pod)
    assert.equal((await writer.exit()).cause, 'KILLED')
    await volumeIsFree(machine, 'crash')
    const reader = await run(machine, {
      args: sh('cat /data/file && echo more > /data/file2 && cat /data/file2'),
      mounts: [mountVolume('crash')],
    })
    assert.equal(reader.stdout, 'synced\nmore\n', `${reader.exit.text} ${reader.notes}`)
  })
}

export function volumeCases(machine: Machine): void {
  suite('system/volumes', { concurrency: 1 }, () => {
    ordinary(machine)
    cutOff(machine)
    parts(machine)
    if (machine.level !== 'vm') containers(machine)
  })
}

/** What costs a start each, where starts are cheap. */
function containers(machine: Machine): void {
  test('is never mounted by the host once a virtual machine could write to it', async () => {
    const snapshot = { volume: 'mark', snapshot: 'before' } as const
    await orderVolume(machine, {
      operation: 'create',
      volume: 'mark',
      size_bytes: VOLUME_BYTES_MIN,
    })
    await orderVolume(machine, { operation: 'snapshot', ...snapshot })
    // As spawn writes it down before a machine has it.
    const facts = path.join(machine.directory, 'state/volumes', TENANT, 'mark/volume.json')
    writeFileSync(facts, readFileSync(facts, 'utf8').replace('"machine":false', '"machine":true'))
    for (const readOnly of [false, true]) {
      const mounts = [mountVolume('mark', '/data', readOnly)]
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      const marked = await prepare(machine, { args: sh('exit 0'), mounts })
      // oxlint-disable-next-line no-await-in-loop -- likewise
      assert.equal(await refusal(marked, await papers(machine, marked)), 'VOLUME_VM_ONLY')
    }
    await orderVolume(machine, { operation: 'restore', ...snapshot })
    const mounts = [mountVolume('mark')]
    assert.equal((await run(machine, { args: sh('exit 0'), mounts })).exit.value, 0)
  })

  test('goes back to what a snapshot had, and no launch gets another size than was decided on', async () => {
    const snapshot = { volume: 'back', snapshot: 'one' } as const
    const mounts = [mountVolume('back')]
    await orderVolume(machine, {
      operation: 'create',
      volume: 'back',
      size_bytes: VOLUME_BYTES_MIN,
    })
    await run(machine, { args: sh('echo one > /data/file'), mounts })
    await volumeIsFree(machine, 'back')
    await orderVolume(machine, { operation: 'snapshot', ...snapshot })
    await run(machine, { args: sh('echo two > /data/file'), mounts })
    await volumeIsFree(machine, 'back')
    await orderVolume(machine, {
      operation: 'grow',
      volume: 'back',
      size_bytes: 2 * VOLUME_BYTES_MIN,
    })
    const stale = await prepare(machine, { args: sh('exit 0'), mounts })
    assert.equal(await refusal(stale, await papers(machine, stale)), 'VOLUME_CHANGED')
    await orderVolume(machine, { operation: 'restore', ...snapshot })
    assert.equal((await run(machine, { args: sh('cat /data/file'), mounts })).stdout, 'one\n')
  })

  test('has several at places of its own, in the order of its mounts', async () => {
    const names = ['v1', 'v2', 'v3', 'v4']
    for (const volume of names) {
      // oxlint-disable-next-line no-await-in-loop -- one after the other
      await orderVolume(machine, { operation: 'create', volume, size_bytes: VOLUME_BYTES_MIN })
    }
    const write = names.map((name, number) => `echo ${name} > /m${number}/name`).join(';')
    const mounts = names.map((name, number) => mountVolume(name, `/m${number}`))
    const first = await run(machine, { args: sh(write), mounts })
    assert.equal(first.exit.value, 0, `${first.exit.text} ${first.notes}`)
    for (const name of names) await volumeIsFree(machine, name) // oxlint-disable-line no-await-in-loop
    const turned = names
      .toReversed()
      .map((name, number) => mountVolume(name, `/m${number}`, number > 1))
    const ended = await run(machine, { args: sh('cat /m?/name'), mounts: turned })
    assert.equal(ended.stdout, 'v4\nv3\nv2\nv1\n', ended.notes)
  })

  test('does nothing for papers that are spent, forged or of another order', async () => {
    const order = { operation: 'create', volume: 'papers', size_bytes: VOLUME_BYTES_MIN } as const
    const good = await volumePapers(machine, order)
    const bent = { ...good, record: good.record.replace('"papers"', '"stolen"') }
    assert.equal(await codeOf(machine.spawn.volume(bent)), 'TICKET_NOT_INCLUDED')
    assert.equal(await codeOf(machine.spawn.volume(good)), 'ok')
    await orderVolume(machine, { operation: 'remove', volume: 'papers' })
    assert.equal(await codeOf(machine.spawn.volume(good)), 'TICKET_SPENT')
    const launched = await prepare(machine, { args: sh('exit 0') })
    const { ticket, record } = await papers(machine, launched)
    assert.equal(await codeOf(machine.spawn.volume({ ticket, record })), 'TICKET_RECORD')
    assert.equal(await listed(machine, 'papers'), undefined)
    const running = await submit(launched, { ticket, record, spec: launched.spec.toString('utf8') })
    await running.exit()
  })
}
