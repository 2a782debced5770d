/** The audit log: its signer in a process of its own, its files on a real file system. */
import { mkdirSync } from 'node:fs'
import path from 'node:path'
import { type AuditLog, openAuditLog, type RecordBody, systemClock } from '../../audit/index.ts'
import { startSigner } from '../system/processes.ts'
import { type Figure, figure } from './figures.ts'
import { elapsedUs, nowUs } from './timing.ts'

const NODE = { id: 'bench', agent: { version: '0.0.0', digest: null }, config: null } as const
const ROUNDS = 5
const WARM_UP = 50
const US_PER_S = 1_000_000

/** A launch.requested as the agent writes it: about 800 bytes with its head. */
const body = (launch: string): RecordBody => ({
  type: 'launch.requested',
  launch_id: launch,
  tenant: 'acme',
  actor: {
    sub: 'acme/ci',
    kind: 'tenant',
    auth: {
      method: 'jwt',
      iss: 'https://casemate.invalid/bench',
      jti: launch,
      uid: null,
      src_ip: '192.0.2.1',
    },
  },
  image_ref: 'registry.example.com/acme/web:1',
  level_requested: null,
  request: `sha256:${'a'.repeat(64)}`,
  idempotency_key: `sha256:${'b'.repeat(64)}`,
})

interface Round {
  /** Of each append, microseconds. */
  readonly latencies: readonly number[]
  readonly perSecond: number
}

/** `records` appends by `writers` that each wait for their last one. */
async function round(log: AuditLog, writers: number, records: number): Promise<Round> {
  const clock = systemClock()
  const latencies: number[] = []
  let left = records
  const write = async (): Promise<void> => {
    while (left > 0) {
      left -= 1
      // oxlint-disable-next-line no-await-in-loop -- a writer waits: that is the concurrency
      latencies.push(await elapsedUs(() => log.append(body(clock.uuid()))))
    }
  }
  const began = nowUs()
  await Promise.all(Array.from({ length: writers }, write))
  return { latencies, perSecond: (records / (nowUs() - began)) * US_PER_S }
}

async function atConcurrency(
  log: AuditLog,
  writers: number,
  records: number,
): Promise<readonly Figure[]> {
  const rounds: Round[] = []
  for (let count = 0; count < ROUNDS; count += 1) {
    // oxlint-disable-next-line no-await-in-loop -- rounds must not meet
    rounds.push(await round(log, writers, records))
  }
  const name = `audit.append.c${writers}`
  return [
    figure(
      `${name}.latency`,
      'us',
      rounds.flatMap(({ latencies }) => latencies),
    ),
    figure(
      `${name}.rate`,
      'records/s',
      rounds.map(({ perSecond }) => perSecond),
    ),
  ]
}

export async function measureAudit(folder: string): Promise<readonly Figure[]> {
  const directory = path.join(folder, 'audit')
  mkdirSync(directory)
  const signer = await startSigner(directory, 'casemate/bench')
  try {
    const log = await openAuditLog({
      directory: path.join(directory, 'log'),
      signerSocket: path.join(directory, 'signer.sock'),
      vkey: signer.ready.slice('ready '.length),
      node: NODE,
    })
    try {
      await round(log, 1, WARM_UP)
      return [...(await atConcurrency(log, 1, 100)), ...(await atConcurrency(log, 32, 1600))]
    } finally {
      await log.close()
    }
  } finally {
    await signer.end()
  }
}
