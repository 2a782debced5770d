/** The disks that are the same for every launch: init (vda), the empty scratch (vdc), and what volumes begin as. */
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  renameSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import path from 'node:path'
import { blockDigest, verityTree } from './blocks.mjs'
import { digestOf, readJson, replaceText } from './files.mjs'
import { artifacts } from './paths.mjs'
import { capture } from './run.mjs'

/** Fixed, so that the same program gives the same disk everywhere. */
const INIT_UUID = '6361736d-6174-6500-8000-000000000001'
const HELLO_UUID = '6361736d-6174-6500-8000-000000000003'
const SCRATCH_UUID = '6361736d-6174-6500-8000-000000000002'
const VOLUME_UUID = '6361736d-6174-6500-8000-000000000004'
const saltOf = (name) => createHash('sha256').update(`casemate ${name} disk`).digest('hex')
const MIB = 1024 * 1024
const SCRATCH_BYTES = 256 * MIB
/** The smallest volume; `native/ticket/src/volume.rs` has both bounds. */
const VOLUME_BYTES = 64 * MIB
/** Blocks of the largest volume: group descriptors are reserved for so many. */
const VOLUME_BLOCKS_MAX = (256 * 1024 * MIB) / 4096

/** In place of the host's /etc/mke2fs.conf. */
const mke2fsConfig = (features, inodeRatio) => `[defaults]
  base_features = none,sparse_super,large_file,filetype,dir_index,ext_attr
  default_mntopts = acl,user_xattr
  enable_periodic_fsck = 0
  blocksize = 4096
  inode_size = 256
  inode_ratio = ${inodeRatio}
  reserved_ratio = 0
[fs_types]
  ext4 = {
    features = ${['extent,huge_file,flex_bg,dir_nlink,extra_isize', ...features].join(',')}
  }
`

/** Folders that init mounts on. The disk is read-only, so every mount point exists from the start. */
const INIT_FOLDERS = ['dev', 'proc', 'sys', 'mnt']

/** Whether `file` and its description are of `source`; then the description, else null. */
function upToDate(name, source) {
  const description = readJson(path.join(artifacts, `${name}.json`))
  const there = existsSync(path.join(artifacts, `${name}.img`))
  return there && description?.source === source ? description : null
}

/** Makes the disk in a folder of its own and moves image and description into place. */
async function make(name, source, build) {
  const known = upToDate(name, source)
  if (known !== null) return known
  const work = path.join(artifacts, `${name}.work`)
  try {
    rmSync(work, { recursive: true, force: true }) // of a set-up that was ended
    mkdirSync(work, { recursive: true })
    const image = path.join(work, 'disk.img')
    const description = { ...(await build(image, work)), source }
    const file = path.join(artifacts, `${name}.img`)
    rmSync(path.join(artifacts, `${name}.json`), { force: true })
    renameSync(image, file)
    replaceText(path.join(artifacts, `${name}.json`), `${JSON.stringify(description, null, 2)}\n`)
    return description
  } finally {
    rmSync(work, { recursive: true, force: true })
  }
}

const toolVersion = (command) => capture(['sh', '-c', `${command} 2>&1`])?.split('\n')[0] ?? ''

/** EROFS with one program and these folders, followed by its Merkle tree. */
async function programDisk({ name, program, as, uuid, folders }, log, working) {
  const source = `${digestOf(program)} ${toolVersion('mkfs.erofs -V')} ${folders.join(' ')}`
  return await make(name, source, async (image, work) => {
    working(`making the ${name} disk`)
    const files = path.join(work, 'files')
    for (const folder of folders)
      mkdirSync(path.join(files, folder), { recursive: true, mode: 0o755 })
    copyFileSync(program, path.join(files, as))
    await log.run(['chmod', '0755', path.join(files, as)])
    const options = ['-T0', '-U', uuid, '--all-root', '-x-1', '--quiet']
    await log.run(['mkfs.erofs', ...options, image, files])
    const { tree, verity } = verityTree(image, saltOf(name))
    appendFileSync(image, tree)
    return { size: statSync(image).size, verity }
  })
}

/** guest-init as /init. */
export const initDisk = (program, log, working) =>
  programDisk(
    { name: 'init', program, as: 'init', uuid: INIT_UUID, folders: INIT_FOLDERS },
    log,
    working,
  )

/** The image that `doctor --vm` starts: one program that says that it runs. */
export const helloDisk = (program, log, working) =>
  programDisk(
    { name: 'hello', program, as: 'hello', uuid: HELLO_UUID, folders: INIT_FOLDERS },
    log,
    working,
  )

/**
 * An empty ext4, the same bytes everywhere. `more` are further arguments of mke2fs; `request` is what debugfs does then,
 * if anything.
 */
async function emptyDisk({ name, bytes, uuid, config, extended, more, request }, log, working) {
  const options = ['-q', '-t', 'ext4', '-T', 'ext4', '-m', '0', '-U', uuid, ...more]
  const always = [
    `hash_seed=${uuid}`,
    'lazy_itable_init=0',
    'assume_storage_prezeroed=1',
    'nodiscard',
    'root_owner=0:0',
  ]
  options.push('-E', [...always, ...extended].join(','))
  const source = `${toolVersion('mke2fs -V')} ${bytes} ${options.join(' ')} ${request} ${config}`
  return await make(name, source, async (image, work) => {
    working(`making the ${name} disk`)
    writeFileSync(image, '')
    truncateSync(image, bytes)
    const file = path.join(work, 'mke2fs.conf')
    writeFileSync(file, config)
    const env = { E2FSPROGS_FAKE_TIME: '1', MKE2FS_CONFIG: file }
    await log.run(['mke2fs', ...options, image], { env })
    if (request !== null) await log.run(['debugfs', '-w', '-R', request, image], { env })
    return blockDigest(image)
  })
}

/** No journal and no checksums: it lives as long as a pod, so there is nothing to recover. */
export const scratchDisk = (log, working) =>
  emptyDisk(
    {
      name: 'scratch',
      bytes: SCRATCH_BYTES,
      uuid: SCRATCH_UUID,
      config: mke2fsConfig([], 4096),
      extended: [],
      more: [],
      request: null,
    },
    log,
    working,
  )

/** What every named volume begins as: it outlives crashes, and grows while it is mounted. */
export const volumeDisk = (log, working) =>
  emptyDisk(
    {
      name: 'volume',
      bytes: VOLUME_BYTES,
      uuid: VOLUME_UUID,
      config: mke2fsConfig(['has_journal', 'metadata_csum', 'resize_inode'], 8192),
      extended: [`resize=${VOLUME_BLOCKS_MAX}`, 'lazy_journal_init=1'],
      more: ['-J', 'size=16', '-e', 'remount-ro'],
      // Programs want an empty folder: initdb refuses one that has this in it.
      request: 'rmdir lost+found',
    },
    log,
    working,
  )
