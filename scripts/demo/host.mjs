/** One Casemate host for the demo, and its command line. */
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import { run, start } from './processes.mjs'

export const checkout = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '../..')
const cli = path.join(checkout, 'agent/cli/main.ts')

/** The CLI as a command to run; `global` options come first. */
export const casemate = (...args) => [process.execPath, cli, ...args]

export async function startHost({ stateDir, runDir, httpsPort, registry }) {
  const command = casemate(
    'up',
    '--state-dir',
    stateDir,
    '--run-dir',
    runDir,
    '--https-port',
    String(httpsPort),
    '--insecure-registry',
    registry,
    '--allow-software-kvm',
  )
  const running = await start(command, (line) => line === 'casemate is up')
  return {
    socket: path.join(runDir, 'agent/agent.sock'),
    url: `https://127.0.0.1:${httpsPort}`,
    ca: path.join(runDir, 'agent/certificate.pem'),
    vkey: path.join(stateDir, 'conf/log.vkey'),
    log: path.join(stateDir, 'agent/audit'),
    pid: running.child.pid,
    end: running.end,
  }
}

/** The two ways in: an operator through the unix socket, a tenant over HTTPS with its token. */
export const asOperator = (host) => ['--socket', host.socket]
export const asTenant = (host, tokenFile) => [
  '--url',
  host.url,
  '--ca',
  host.ca,
  '--token-file',
  tokenFile,
]

/** Runs the CLI and reads its JSON; the status comes with it, because refusals are JSON too. */
export async function ask(access, ...args) {
  const { status, stdout, stderr } = await run(casemate(...access, '-o', 'json', ...args))
  let value = null
  try {
    value = JSON.parse(stdout)
  } catch {
    // Not even a problem document: the words on standard error say why.
  }
  return { status, value, stderr }
}
