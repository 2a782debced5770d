/** What is undone, one row at a time. A row has lines of configuration, or another command line, or both. */

const on = (...names) => names.map((name) => `CONFIG_${name}=y`)
const off = (...names) => names.map((name) => `# CONFIG_${name} is not set`)

/** What every VM has (native/spawn/src/machine.rs). */
export const CMDLINE =
  'console=ttyS0 reboot=t panic=-1 random.trust_cpu=off quiet root=/dev/vda ro rootfstype=erofs init=/init'

const without = (word) =>
  CMDLINE.split(' ')
    .filter((other) => other !== word)
    .join(' ')

/**
 * Cheap ones first: a change that reaches every file costs a build of the whole kernel, and one more for the row behind it.
 * `set` is what is added to native/kernel/config, whose own lines about the same options it replaces.
 */
export const ROWS = [
  { name: 'quiet', cmdline: without('quiet') },
  { name: 'rootfstype', cmdline: without('rootfstype=erofs') },
  { name: 'legacy-ptys', set: on('LEGACY_PTYS') },
  {
    name: 'serial-ports',
    set: ['CONFIG_SERIAL_8250_NR_UARTS=4', 'CONFIG_SERIAL_8250_RUNTIME_UARTS=4'],
  },
  { name: 'io-schedulers', set: on('MQ_IOSCHED_DEADLINE', 'MQ_IOSCHED_KYBER') },
  { name: 'firmware-tables', set: on('DMI', 'FIRMWARE_MEMMAP') },
  { name: 'mtrr-mce-microcode', set: on('MTRR', 'X86_MCE', 'MICROCODE') },
  {
    name: 'screen-and-keyboard',
    set: on('VT', 'INPUT', 'SERIO', 'SERIO_I8042', 'INPUT_KEYBOARD', 'KEYBOARD_ATKBD'),
  },
  { name: 'net-extras', set: on('IPV6_SIT', 'INET_DIAG', 'ETHTOOL_NETLINK', 'ETHERNET', 'WLAN') },
  { name: 'io-uring', set: on('IO_URING') },
  { name: 'erofs-zip', set: on('EROFS_FS_ZIP') },
  { name: 'cpufreq', set: on('SCHED_MC_PRIO', 'CPU_FREQ') },
  { name: 'partitions', set: on('MSDOS_PARTITION', 'EFI_PARTITION') },
  // Not cuts but what was added, taken out again: what it costs.
  { name: 'without-syn-cookies', set: off('SYN_COOKIES') },
  { name: 'without-landlock', set: off('SECURITY_LANDLOCK') },
  { name: 'without-counters', set: off('VM_EVENT_COUNTERS') },
  { name: 'pci', set: on('PCI') },
  { name: 'acpi', set: on('ACPI') },
  { name: 'initramfs', set: on('BLK_DEV_INITRD') },
  { name: 'swap', set: on('SWAP') },
  { name: 'slub-debug', set: on('SLUB_DEBUG') },
  { name: 'unwinder', set: [...off('UNWINDER_GUESS'), ...on('UNWINDER_ORC')] },
  { name: 'five-levels', set: on('X86_5LEVEL') },
  { name: 'tracing', set: on('FTRACE', 'FUNCTION_TRACER', 'DYNAMIC_FTRACE', 'BLK_DEV_IO_TRACE') },
  { name: 'modules', set: on('MODULES') },
  { name: 'hz-250', set: [...off('HZ_100'), ...on('HZ_250')] },
  { name: 'stack-protector', set: on('STACKPROTECTOR', 'STACKPROTECTOR_STRONG') },
  { name: 'init-stack', set: [...off('INIT_STACK_NONE'), ...on('INIT_STACK_ALL_ZERO')] },
  { name: 'rethunk', set: on('RETHUNK') },
  { name: 'relocatable', set: on('RELOCATABLE', 'RANDOMIZE_BASE') },
  { name: 'bug', set: on('BUG') },
]
