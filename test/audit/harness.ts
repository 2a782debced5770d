/** A log with its signer in a directory of its own, for tests. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import path from 'node:path'
import type { TestContext } from 'node:test'
import {
  type AuditLog,
  type AuditLogOptions,
  openAuditLog,
  type RecordBody,
} from '../../audit/index.ts'
import { Keeper } from '../../audit/signer/keeper.ts'
import { type Access, listen } from '../../audit/signer/server.ts'
import { peerOf } from '../../native/addon.ts'

export const ORIGIN = 'casemate.test/log'

/** Of a signer in the test's own process. */
export const ACCESS: Access = {
  uid: process.getuid?.() ?? 0,
  uidOf: (socket) => peerOf(socket).uid,
  gid: null,
}

const cleanups = new WeakMap<TestContext, (() => unknown)[]>()

/** Runs after the test, the last registered first: node:test runs its own hooks in order. */
export function afterwards(t: TestContext, cleanup: () => unknown): void {
  const known = cleanups.get(t)
  if (known !== undefined) {
    known.push(cleanup)
    return
  }
  const list = [cleanup]
  cleanups.set(t, list)
  t.after(async () => {
    // oxlint-disable-next-line no-await-in-loop
    for (const run of list.toReversed()) await run()
  })
}

/** A directory that is gone after the test. */
export function scratch(t: TestContext): string {
  const directory = mkdtempSync(path.join(tmpdir(), 'casemate-audit-'))
  afterwards(t, () => {
    rmSync(directory, { recursive: true, force: true })
  })
  return directory
}

export interface Place {
  readonly directory: string
  readonly options: AuditLogOptions
  readonly vkey: string
  readonly keeper: Keeper
  readonly server: Server
}

/** The signer, listening, and the options to open a log with it. Sizes are small, to be quick. */
export async function prepare(t: TestContext, directory: string = scratch(t)): Promise<Place> {
  const keeper = Keeper.open(path.join(directory, 'keys'), ORIGIN)
  const socket = path.join(directory, 'signer.sock')
  const server = await listen(keeper, socket, ACCESS)
  afterwards(t, () => server.close())
  const options = {
    directory: path.join(directory, 'log'),
    signerSocket: socket,
    vkey: keeper.vkey,
    node: { id: 'host-1', agent: { version: '0.0.0', digest: null }, config: null },
    segmentBytes: 262_144,
    reserveBytes: 65_536,
  }
  return { directory, options, vkey: keeper.vkey, keeper, server }
}

/** Opens the log and closes it after the test, whatever state it is in then. */
export async function open(t: TestContext, options: AuditLogOptions): Promise<AuditLog> {
  const log = await openAuditLog(options)
  let isOpen = true
  afterwards(t, () => (isOpen ? log.close() : undefined))
  const close = log.close.bind(log)
  log.close = (): Promise<void> => {
    isOpen = false
    return close()
  }
  return log
}

/** A small record that tells itself from others. */
export const note = (n: number, padding = 0): RecordBody => ({
  type: 'agent.stop',
  pid: n,
  reason: 'x'.repeat(padding),
})

/** A connection that another user makes: the kernel notes who it is while it connects. */
export function connectAs(uid: number, place: string): Socket {
  assert.ok(process.seteuid !== undefined)
  process.seteuid(uid)
  try {
    return connect(place)
  } finally {
    process.seteuid(0)
  }
}
