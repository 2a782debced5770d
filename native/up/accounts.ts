/** The three users that Casemate's processes run as; made when missing, without home and shell. */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'

export interface Account {
  readonly uid: number
  readonly gid: number
}

export interface Accounts {
  readonly agent: Account
  readonly signer: Account
  readonly worker: Account
}

const names = { agent: 'casemate', signer: 'casemate-signer', worker: 'casemate-worker' } as const

/** The account's line of /etc/passwd, or null. */
function find(name: string): Account | null {
  const line = readFileSync('/etc/passwd', 'utf8')
    .split('\n')
    .find((entry) => entry.startsWith(`${name}:`))
  if (line === undefined) return null
  const [, , uid = '', gid = ''] = line.split(':')
  return { uid: Number(uid), gid: Number(gid) }
}

function ensure(name: string): Account {
  const known = find(name)
  if (known !== null) return known
  const home = ['--no-create-home', '--home-dir', '/nonexistent']
  const options = ['--system', '--user-group', ...home, '--shell', '/usr/sbin/nologin']
  execFileSync('useradd', [...options, name], { stdio: ['ignore', 'ignore', 'inherit'] })
  const made = find(name)
  if (made === null) throw new Error(`useradd made no user ${name}`)
  return made
}

/** Needs root when one of them is missing. */
export const ensureAccounts = (): Accounts => ({
  agent: ensure(names.agent),
  signer: ensure(names.signer),
  worker: ensure(names.worker),
})
