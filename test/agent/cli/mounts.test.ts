import assert from 'node:assert/strict'
import { suite, test } from 'node:test'
import { type MountOptions, mountMembersOf } from '../../../agent/cli/mounts.ts'

const members = (options: MountOptions): unknown =>
  JSON.parse(JSON.stringify(mountMembersOf(options)))

suite('agent/cli/mounts', () => {
  test('reads Docker’s words for memory, and what is always so', () => {
    const tmpfs = ['/run', '/tmp:rw,nosuid,nodev,noexec,size=64m,mode=700', '/x:ro,size=4096']
    assert.deepEqual(members({ tmpfs }), {
      mounts: [
        { type: 'tmpfs', target: '/run' },
        { type: 'tmpfs', target: '/tmp', exec: false, size_bytes: 67_108_864, mode: '700' },
        { type: 'tmpfs', target: '/x', read_only: true, size_bytes: 4096 },
      ],
    })
  })

  test('reads mounts, sizes and parameters', () => {
    const options = {
      mount: ['type=empty,dst=/x', 'type=empty,target=/y,medium=memory,size=1G'],
      shmSize: '1g',
      sysctl: ['net.core.somaxconn=9', 'kernel.sem=1 2 = 3'],
    }
    assert.deepEqual(members(options), {
      mounts: [
        { type: 'empty', target: '/x' },
        { type: 'empty', target: '/y', medium: 'memory', size_bytes: 2 ** 30 },
      ],
      shm_bytes: 2 ** 30,
      sysctls: { 'net.core.somaxconn': '9', 'kernel.sem': '1 2 = 3' },
    })
    assert.deepEqual(members({}), {})
  })

  test('reads a volume, a path of the host by its name, and a part of either', () => {
    const mount = [
      'type=volume,source=data,target=/x,volume-subpath=a/b',
      'source=models,type=host,target=/y,subpath=c,readonly',
    ]
    assert.deepEqual(members({ mount }), {
      mounts: [
        { type: 'volume', volume: 'data', target: '/x', sub_path: 'a/b' },
        { host_path: 'models', type: 'host', target: '/y', sub_path: 'c', read_only: true },
      ],
    })
  })

  test('refuses words that it does not know, or knows twice', () => {
    for (const options of [
      { tmpfs: ['/x:suid'] },
      { tmpfs: ['/x:'] },
      { tmpfs: ['/x:size'] },
      { tmpfs: ['/x:size=1t'] },
      { tmpfs: ['/x:size=1,size=2'] },
      { tmpfs: ['/x:ro,readonly'] },
      { mount: ['type=empty'] },
      { mount: ['target=/x'] },
      { mount: ['type=host,source=models,src=models,target=/x'] },
      { mount: ['type=volume,source=data,volume=data,target=/x'] },
      { mount: ['type=empty,target=/x,__proto__=y'] },
      { shmSize: '1.5g' },
      { shmSize: '' },
      { sysctl: ['net.core.somaxconn'] },
      { sysctl: ['=1'] },
    ]) {
      assert.throws(() => mountMembersOf(options), { name: 'UsageError' }, JSON.stringify(options))
    }
  })
})
