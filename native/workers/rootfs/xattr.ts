/**
 * Which extended attributes of an archive go into the image, and as what. Those that make no sense
 * in another machine (SELinux labels, overlay's own marks) are dropped, as builders leave them in by
 * accident; those that do are bounded.
 */
import { invalid, show } from './failure.ts'

/** As EROFS stores it: a number for the prefix and the rest of the name. */
export interface Xattr {
  readonly prefix: number
  readonly suffix: string
  readonly value: Buffer
}

const XATTR_BYTES_MAX = 65_536
const USER = 1
const POSIX_ACL_ACCESS = 2
const POSIX_ACL_DEFAULT = 3
const SECURITY = 6

/** Kernel ACL form: u32 version 2, then entries of 8 bytes (include/uapi/linux/posix_acl_xattr.h). */
function checkAcl(name: string, value: Buffer): void {
  const proper = value.length >= 4 && value.length % 8 === 4 && value.readUInt32LE(0) === 2
  if (!proper) throw invalid(`the access control list ${show(name)} is malformed`)
}

function keep(name: string, value: Buffer): Xattr | null {
  if (name.startsWith('user.') && name.length > 5) {
    return { prefix: USER, suffix: name.slice(5), value }
  }
  if (name === 'security.capability') return { prefix: SECURITY, suffix: 'capability', value }
  if (name === 'system.posix_acl_access' || name === 'system.posix_acl_default') {
    checkAcl(name, value)
    const isAccess = name === 'system.posix_acl_access'
    return { prefix: isAccess ? POSIX_ACL_ACCESS : POSIX_ACL_DEFAULT, suffix: '', value }
  }
  return null
}

const order = (a: string, b: string): number => (a < b ? -1 : Number(a > b))

/** Sorted by name, so that the same layer gives the same bytes. */
export function keepXattrs(xattrs: ReadonlyMap<string, Buffer>): readonly Xattr[] {
  const kept: Xattr[] = []
  let bytes = 0
  for (const [name, value] of [...xattrs].toSorted(([a], [b]) => order(a, b))) {
    if (name.includes('\0') || name.length > 255) {
      throw invalid(`the extended attribute ${show(name)} has no proper name`)
    }
    bytes += name.length + value.length
    if (bytes > XATTR_BYTES_MAX || value.length > 65_535) {
      throw invalid('an entry has more than 64 KiB of extended attributes')
    }
    const xattr = keep(name, value)
    if (xattr !== null) kept.push(xattr)
  }
  return kept
}
