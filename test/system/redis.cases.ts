/** redis from Debian's packages, with its data in a named volume. */
import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { VOLUME_BYTES_MIN } from '../../policy/index.ts'
import { missing } from '../peers/images-programs.ts'
import { BUSYBOX, type Machine } from './harness.ts'
import { buildDisk, busyboxTar } from './images.ts'
import { sh, start, type Wish } from './launch.ts'
import { debianLayer } from './popular/debian-layer.ts'
import { mountVolume, orderVolume, volumeIsFree } from './volume.cases.ts'

/** Serves a socket; what redis has been told is in its log of commands, synced, before it answers. */
const SERVE = `b=/bin/busybox
/usr/bin/redis-server --port 0 --unixsocket /tmp/redis --save '' --appendonly yes --appendfsync always \\
  --dir /store --logfile /tmp/redis.log &
until $b test -S /tmp/redis && $b grep -q 'ready to accept' /tmp/redis.log; do $b sleep 0.1; done
redis() { /usr/bin/redis-cli -s /tmp/redis "$@"; }`

const WRITE = `${SERVE}
$b seq 1000 | $b awk '{ printf " key:%s value-%s", $1, $1 * 7 }' > /tmp/pairs
echo "written $(redis MSET $(cat /tmp/pairs))"; wait`

const READ = `${SERVE}
echo "found $(redis DBSIZE) $(redis GET key:1) $(redis GET key:1000) $(redis GET key:1001)"; redis SHUTDOWN; wait`

export function redisCases(machine: Machine): void {
  const why = missing('apt-get', 'dpkg-deb')
  suite('system/redis', { skip: why }, () => {
    test('has its keys in a volume: its pod is killed, and another one goes on', async () => {
      const image = await buildDisk(
        machine.place('redis'),
        debianLayer(['redis-server']),
        busyboxTar(BUSYBOX),
      )
      await orderVolume(machine, {
        operation: 'create',
        volume: 'redis',
        size_bytes: VOLUME_BYTES_MIN,
      })
      const wish = (script: string): Wish => ({
        args: sh(script),
        image,
        mounts: [mountVolume('redis', '/store')],
      })
      const writer = await start(machine, wish(WRITE))
      assert.match(await writer.says(/written .+/u), /written OK/u)
      await machine.spawn.kill(writer.pod)
      assert.equal((await writer.exit()).cause, 'KILLED')
      await machine.spawn.forget(writer.pod)
      await volumeIsFree(machine, 'redis')
      const reader = await start(machine, wish(READ))
      assert.match(await reader.says(/found .*/u), /found 1000 value-7 value-7000 \n/u)
      assert.equal((await reader.exit()).cause, 'APP_EXIT')
    })
  })
}
