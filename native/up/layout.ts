/**
 * Where everything of one host is. State survives reboots, run does not; each process owns its own
 * folders and nobody writes into another's.
 *
 *     state/conf     root     spawn.json, agent.json, log.vkey, node: what root decided
 *     state/spawn    root     what spawn keeps
 *     state/signer   signer   the log's private key, what it signed last
 *     state/agent    agent    database, images, pods, audit log
 *     state/logs     root     what the processes say
 *     run/spawn      root     spawn.sock, spent tickets
 *     run/signer     signer   signer.sock, log.vkey
 *     run/agent      agent    agent.sock, certificate.pem
 *     run/code       root     the checkout, read-only, in a mount namespace of our own
 */
import path from 'node:path'

export interface Layout {
  readonly state: string
  readonly run: string
  readonly conf: string
  readonly logs: string
  readonly spawnConfig: string
  readonly agentConfig: string
  readonly vkey: string
  readonly nodeFile: string
  readonly spawnRun: string
  readonly spawnState: string
  readonly spawnSocket: string
  readonly signerRun: string
  readonly signerState: string
  readonly signerSocket: string
  readonly signerVkey: string
  readonly agentRun: string
  readonly agentState: string
  readonly code: string
}

export const DEFAULT_STATE = '/var/lib/casemate'
export const DEFAULT_RUN = '/run/casemate'
/** sockaddr_un holds 108 bytes with the final NUL. */
const SOCKET_BYTES_MAX = 107

/** @throws TypeError for a run directory in which a socket's path would be too long */
export function layoutOf(state: string, run: string): Layout {
  const signerSocket = path.join(run, 'signer/signer.sock')
  if (Buffer.byteLength(signerSocket) > SOCKET_BYTES_MAX) {
    throw new TypeError(`the run directory ${run} is too long: paths of sockets end at 107 bytes`)
  }
  const conf = path.join(state, 'conf')
  return {
    state,
    run,
    conf,
    logs: path.join(state, 'logs'),
    spawnConfig: path.join(conf, 'spawn.json'),
    agentConfig: path.join(conf, 'agent.json'),
    vkey: path.join(conf, 'log.vkey'),
    nodeFile: path.join(conf, 'node'),
    spawnRun: path.join(run, 'spawn'),
    spawnState: path.join(state, 'spawn'),
    spawnSocket: path.join(run, 'spawn/spawn.sock'),
    signerRun: path.join(run, 'signer'),
    signerState: path.join(state, 'signer'),
    signerSocket,
    signerVkey: path.join(run, 'signer/log.vkey'),
    agentRun: path.join(run, 'agent'),
    agentState: path.join(state, 'agent'),
    code: path.join(run, 'code'),
  }
}
