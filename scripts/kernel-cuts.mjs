/**
 * What each cut in the guest kernel's configuration saves (native/kernel/README.md, "Boot, cut by cut"): builds the kernel with one of
 * them undone and counts the instructions to process 1 in QEMU's interpreter.
 *
 *     node scripts/kernel-cuts.mjs FOLDER [ROW ...]     all rows without names; FOLDER, outside of the repository, keeps source and objects
 */
import { spawnSync } from 'node:child_process'
import {
  appendFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { availableParallelism } from 'node:os'
import path from 'node:path'
import process from 'node:process'
import { CMDLINE, ROWS } from './kernel-cuts/rows.mjs'
import { inRoot } from './setup/paths.mjs'
import { SetupError } from './setup/run.mjs'

const SOURCE = 'linux-source-6.1'
/** Sixteen nanoseconds of the virtual clock for each instruction: what the kernel waits for then weighs little. */
const SHIFT = 4
/** Under KVM no timer is calibrated against another: kvmclock and the TSC deadline spare that. The interpreter has neither. */
const UNCALIBRATED = 'no_timer_check nolapic_timer'
/** While the guest waits for its disk its clock leaps: the quickest of so many boots waited least. */
const BOOTS = 5
const MEMORY_KIB = 128 * 1024

function run(program, args, options = {}) {
  const done = spawnSync('nice', ['-n', '15', program, ...args], {
    encoding: 'utf8',
    maxBuffer: 1 << 28,
    ...options,
  })
  if (done.status === 0) return done.stdout
  const last = `${done.stdout}${done.stderr}`.split('\n').slice(-12).join('\n')
  throw new SetupError(
    `${program} failed: ${last}`,
    'npm run setup installs what it needs; QEMU is Debian’s qemu-system-x86',
  )
}

const [folder, ...names] = process.argv.slice(2)
if (folder === undefined || path.resolve(folder).startsWith(inRoot())) {
  throw new SetupError(
    'no folder outside of the repository is named',
    'node scripts/kernel-cuts.mjs FOLDER [ROW ...]',
  )
}
const within = (...parts) => path.resolve(folder, ...parts)
const tree = within(SOURCE)

function prepare() {
  mkdirSync(within('root'), { recursive: true })
  if (!existsSync(tree)) run('tar', ['-xf', `/usr/src/${SOURCE}.tar.xz`, '-C', folder])
  const flags = ['-O2', '-static', '-nostdlib', '-ffreestanding', '-fno-stack-protector']
  run('gcc', [...flags, '-o', within('root/init'), inRoot('scripts/kernel-cuts/init.c')])
  for (const name of ['dev', 'proc', 'sys', 'mnt'])
    mkdirSync(within('root', name), { recursive: true })
  run('mkfs.erofs', ['-T0', '--all-root', '-x-1', '--quiet', within('root.img'), within('root')])
}

const option = (line) => /CONFIG_\w+/u.exec(line)?.[0]

/** The configuration with `set` in place of what it says about the same options. */
function configured(set) {
  const replaced = new Set(set.map(option))
  const kept = readFileSync(inRoot('native/kernel/config'), 'utf8')
    .split('\n')
    .filter((line) => !replaced.has(option(line)))
  return `${[...kept, ...set].join('\n')}\n`
}

/** Builds the kernel of a row; the options that `make olddefconfig` did not take over. */
function build(set, kernel) {
  const config = path.join(tree, '.config')
  writeFileSync(config, configured(set))
  run('make', ['-C', tree, 'olddefconfig'])
  const made = readFileSync(config, 'utf8').split('\n')
  run('make', ['-C', tree, `-j${availableParallelism()}`, 'LOCALVERSION=', 'vmlinux'])
  run('strip', ['-s', '-o', kernel, path.join(tree, 'vmlinux')])
  return set.filter((line) => !line.startsWith('#') && !made.includes(line))
}

/** Instructions so far, and KiB of memory that the kernel keeps, at the first instruction of process 1. */
function boot(kernel, cmdline) {
  const machine = [
    ['-M', 'microvm,acpi=off,x-option-roms=off,pit=on,pic=on,rtc=on,isa-serial=on'],
    [
      '-accel',
      'tcg',
      '-icount',
      `shift=${SHIFT},sleep=off`,
      '-cpu',
      'max',
      '-smp',
      '1',
      '-m',
      `${MEMORY_KIB / 1024}`,
    ],
    [
      '-nodefaults',
      '-no-reboot',
      '-nographic',
      '-serial',
      'stdio',
      '-kernel',
      kernel,
      '-append',
      `${cmdline} ${UNCALIBRATED}`,
    ],
    ['-global', 'virtio-mmio.force-legacy=false', '-device', 'virtio-serial-device,max_ports=2'],
    ['-drive', `id=disk,file=${within('root.img')},format=raw,if=none,snapshot=on`],
    ['-device', 'virtio-blk-device,drive=disk', '-device', 'virtio-rng-device'],
  ].flat()
  const console = run('qemu-system-x86_64', machine, { timeout: 600_000, input: '' })
  const said = /CUTS (\d+) (\d+)/u.exec(console)
  if (said === null)
    throw new SetupError(
      `the kernel did not come to process 1: ${console.slice(-500)}`,
      'read its messages',
    )
  return { instructions: Number(said[1]) / 2 ** SHIFT, kept: MEMORY_KIB - Number(said[2]) }
}

function measure({ name, set = [], cmdline = CMDLINE }) {
  const kernel = within(`vmlinux-${name}`)
  const lost = name !== 'ours' && set.length === 0 ? [] : build(set, kernel)
  const image = existsSync(kernel) ? kernel : within('vmlinux-ours')
  const boots = Array.from({ length: BOOTS }, () => boot(image, cmdline))
  const [least] = boots.sort((one, other) => one.instructions - other.instructions)
  return { name, lost, size: statSync(image).size, ...least }
}

const decimals = (value, digits) => value.toFixed(digits).padStart(9)

function show({ name, lost, instructions, size, kept }, ours) {
  const line = [
    name.padEnd(22),
    decimals(instructions / 1e6, 2),
    decimals((instructions / ours.instructions - 1) * 100, 1),
    decimals(size / 1024, 0),
    decimals((size - ours.size) / 1024, 0),
    decimals(kept - ours.kept, 0),
    lost.length > 0 ? ` not taken over: ${lost.join(' ')}` : '',
  ].join(' ')
  console.log(line)
  appendFileSync(within('results.txt'), `${line}\n`)
}

prepare()
console.log('row                    10^6 instr    % more  size KiB      more KiB kept more')
const ours = measure({ name: 'ours' })
show(ours, ours)
for (const row of ROWS.filter(({ name }) => names.length === 0 || names.includes(name)))
  show(measure(row), ours)
