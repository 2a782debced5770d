/** Swap, on every kind of device there is for it. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { isFinding } from '../../../agent/host/check.ts'
import { checkOf, description, examine, type Files, MOUNTS, severityOf, swaps } from './layout.ts'

const block = 'sys/class/block'
const DISK: Files = { [`${block}/nvme0n1p3/partition`]: '3' }
/** dm-0: LUKS on a partition. dm-1: LVM on dm-0. dm-2: LVM on dm-0 and a plain disk. dm-3: dm-verity. */
const MAPPED: Files = {
  [`${block}/dm-0/dm/uuid`]: 'CRYPT-LUKS2-1234-cryptroot\n',
  [`${block}/dm-0/dm/name`]: 'cryptroot\n',
  [`${block}/dm-1/dm/uuid`]: 'LVM-abcd\n',
  [`${block}/dm-1/dm/name`]: 'vg-swap\n',
  [`${block}/dm-1/slaves/dm-0/dev`]: '254:0',
  [`${block}/dm-2/dm/uuid`]: 'LVM-efgh\n',
  [`${block}/dm-2/slaves/dm-0/dev`]: '254:0',
  [`${block}/dm-2/slaves/sda1/dev`]: '8:1',
  [`${block}/dm-3/dm/uuid`]: 'CRYPT-VERITY-99-root\n',
  [`${block}/dm-4/dm/uuid`]: 'CRYPT-PLAIN-swap\n',
  [`${block}/sda1/partition`]: '1',
}

const CASES: Readonly<Record<string, readonly [string, Files, boolean]>> = {
  'a partition': ['/dev/nvme0n1p3                          partition', DISK, false],
  'a disk that is nowhere': ['/dev/sdz partition', {}, false],
  LUKS: ['/dev/dm-0 partition', MAPPED, true],
  'LUKS by its name': ['/dev/mapper/cryptroot partition', MAPPED, true],
  'LVM on LUKS': ['/dev/dm-1 partition', MAPPED, true],
  'LVM on LUKS by its name': ['/dev/mapper/vg-swap partition', MAPPED, true],
  'LVM on LUKS and on a disk': ['/dev/dm-2 partition', MAPPED, false],
  'dm-verity': ['/dev/dm-3 partition', MAPPED, false],
  'plain dm-crypt': ['/dev/dm-4 partition', MAPPED, true],
  'a name that device mapper does not know': ['/dev/mapper/other partition', MAPPED, false],
  zram: ['/dev/zram0 partition', { [`${block}/zram0/disksize`]: '1' }, true],
  'zram that writes nowhere': [
    '/dev/zram0 partition',
    { [`${block}/zram0/backing_dev`]: 'none\n' },
    true,
  ],
  'zram that writes to a disk': [
    '/dev/zram0 partition',
    { [`${block}/zram0/backing_dev`]: '/dev/sda1\n' },
    false,
  ],
  'a file on a disk': ['/swapfile file', { 'sys/dev/block/254:1/partition': '1' }, false],
  'a file on LUKS': [
    '/crypt/a\\040swap\\040file file',
    {
      'proc/self/mountinfo': `${[...MOUNTS, '50 22 254:0 / /crypt rw - ext4 /dev/dm-0 rw'].join('\n')}\n`,
      'sys/dev/block/254:0/dm/uuid': 'CRYPT-LUKS1-77-home',
    },
    true,
  ],
  'a file beside a mount on LUKS': [
    '/cryptic/swapfile file',
    {
      'proc/self/mountinfo': `${[...MOUNTS, '50 22 254:0 / /crypt rw - ext4 /dev/dm-0 rw'].join('\n')}\n`,
      'sys/dev/block/254:0/dm/uuid': 'CRYPT-LUKS1-77-home',
    },
    false,
  ],
}

suite('agent/host swap', () => {
  for (const [name, [line, files, safe]] of Object.entries(CASES)) {
    test(`${safe ? 'is content with' : 'finds'} ${name}`, async (t) => {
      const report = await examine(t, { ...files, 'proc/swaps': swaps(line) })
      assert.equal(severityOf(report, 'swap'), safe ? 'ok' : 'warning')
    })
  }

  test('is severe where VMs cannot be kept out of it', async (t) => {
    const layout = { ...DISK, 'proc/swaps': swaps('/dev/nvme0n1p3 partition') }
    const report = await examine(t, layout, description({ swap_limit: false }))
    assert.equal(severityOf(report, 'swap'), 'severe')
    const none = await examine(t, {}, description({ swap_limit: false }))
    assert.equal(severityOf(none, 'swap'), 'ok')
  })

  test('looks at every area, and names those that are wrong', async (t) => {
    const areas = ['/dev/dm-0 partition', '/dev/sda1 partition', '/dev/zram0 partition']
    const found = checkOf(await examine(t, { ...MAPPED, 'proc/swaps': swaps(...areas) }), 'swap')
    assert.ok(found !== undefined && isFinding(found))
    assert.match(found.reason, /^Swap on \/dev\/sda1 is not/u)
    assert.match(found.fix, /^swapoff \/dev\/sda1,/u)
  })
})
