/** Makes everything and connects it; nobody else does. */
import { readFileSync } from 'node:fs'
import { chmod, mkdir, rm } from 'node:fs/promises'
import path from 'node:path'
import type { FastifyBaseLogger, FastifyInstance, FastifyPluginCallback } from 'fastify'
import { openAuditLog, systemClock } from '../audit/index.ts'
import { launchers } from '../native/launcher.ts'
import { seccompCompiler } from '../native/seccomp/compile.ts'
import { type SpawnClient, spawnClient } from '../native/spawn-client.ts'
import { activatePolicies, DEFAULT_POLICIES, parseImageRule } from '../policy/index.ts'
import { openTenants } from '../tenants/index.ts'
import { AuditGate } from './audit-gate.ts'
import type { AgentConfig } from './config.ts'
import { HostRoot } from './host/root.ts'
import { HostSafety } from './host/safety.ts'
import { createImages, type OnEvicted } from './images/index.ts'
import { LiveTokens } from './live-tokens.ts'
import { PodFiles } from './pod-files.ts'
import { auditRoutes } from './routes/audit.ts'
import { copyRoutes } from './routes/copy.ts'
import { debugRoutes } from './routes/debug.ts'
import { drainRoutes } from './routes/drain.ts'
import { eventRoutes } from './routes/events.ts'
import { execRoutes } from './routes/exec.ts'
import { gcRoutes } from './routes/gc.ts'
import { healthRoutes } from './routes/health.ts'
import { hostRoutes } from './routes/host.ts'
import { inputRoutes } from './routes/input.ts'
import { killRoutes } from './routes/kill.ts'
import { OpenAnswers } from './routes/open-answers.ts'
import { podControlRoutes } from './routes/pod-control.ts'
import { podRoutes } from './routes/pods.ts'
import { processRoutes } from './routes/processes.ts'
import { renameRoutes } from './routes/rename.ts'
import { storedFileRoutes } from './routes/stored-files.ts'
import { tenantRoutes } from './routes/tenants.ts'
import { tokenRoutes } from './routes/tokens.ts'
import { snapshotRoutes } from './routes/volume-snapshots.ts'
import { volumeRoutes } from './routes/volumes.ts'
import { buildServer } from './server.ts'
import { ChangeBudget } from './tasks/changes.ts'
import { Drain } from './tasks/drain.ts'
import { EventIndex } from './tasks/event-index.ts'
import { ExecCounts } from './tasks/exec.ts'
import { Housekeeping } from './tasks/housekeeping.ts'
import type { LaunchPorts } from './tasks/launch.ts'
import { LaunchBudgets } from './tasks/launch-budgets.ts'
import { rootImageOf } from './tasks/launch-facts.ts'
import { Launching } from './tasks/launching.ts'
import { Pauses } from './tasks/pauses.ts'
import type { Ports } from './tasks/ports.ts'
import { findInterrupted } from './tasks/reconcile.ts'
import { Refusals } from './tasks/refusals.ts'
import { Restarts } from './tasks/restarts.ts'
import { stopAll } from './tasks/stop-all.ts'
import { Templates } from './tasks/templates.ts'
import { stopUnhealthy } from './tasks/unhealthy.ts'
import { Watch } from './tasks/watch.ts'
import { loadTlsPair, publishCertificate } from './tls-store.ts'
import { VERSION } from './version.ts'

export const AGENT_SOCKET = 'agent.sock'
const LOOPBACK = '127.0.0.1'
/** For launches under way when the agent ends; `casemate up` waits for both that and the stop of pods. */
const PATIENCE_MS = 10_000

/** A running agent. */
export interface Agent {
  /** Lets launches come to their answers, stops serving, writes down what is folded, and lets go of the pods, which run on. */
  close(reason: string): Promise<void>
  /** The same, but stops the pods first, with their ends on record, as far as that goes in 15 s. */
  closeWithPods(reason: string): Promise<void>
}

const allRoutes = (ports: LaunchPorts, open: OpenAnswers): readonly FastifyPluginCallback[] => [
  ...podRoutes(ports, open),
  eventRoutes(ports, open),
  podControlRoutes(ports),
  killRoutes(ports),
  debugRoutes(ports),
  renameRoutes(ports),
  execRoutes(ports),
  copyRoutes(ports),
  processRoutes(ports),
  inputRoutes(ports, open),
  ...tenantRoutes(ports),
  tokenRoutes(ports),
  ...storedFileRoutes(ports),
  ...volumeRoutes(ports),
  ...snapshotRoutes(ports),
  ...auditRoutes(ports),
  healthRoutes(ports),
  hostRoutes(ports),
  drainRoutes(ports),
  gcRoutes(ports),
]

async function openAudit(config: AgentConfig, log: FastifyBaseLogger): Promise<AuditGate> {
  const vkey = readFileSync(config.vkeyFile, 'utf8').trim()
  const agent = { version: VERSION, digest: null }
  const open = () =>
    openAuditLog({
      directory: path.join(config.stateDir, 'audit'),
      signerSocket: config.signerSocket,
      vkey,
      node: { id: config.node, agent, config: config.digest },
    })
  const gate = new AuditGate(open, log)
  await gate.start()
  return gate
}

/** What the agent finds itself in; tests put another host around it. */
export interface Surroundings {
  /** Where /proc, /sys and /dev are. */
  readonly root: string
  /** ms since 1970. */
  readonly now: () => number
  readonly spawn: (socket: string) => SpawnClient
}

const HERE: Surroundings = { root: '/', now: Date.now, spawn: spawnClient }

/** What gave way is on record, and its tenant can see it; the disk has it back either way. */
const evictionNotes =
  (audit: AuditGate, log: FastifyBaseLogger): OnEvicted =>
  (tenant, { bytes, files }, reason) => {
    audit
      .appendReserve({ type: 'image.evicted', tenant, files, bytes, reason })
      .catch((error: unknown) => {
        log.error({ err: error, tenant, files, bytes }, 'evicted images are not on record')
      })
  }

function makePorts(
  config: AgentConfig,
  log: FastifyBaseLogger,
  audit: AuditGate,
  { root, now, spawn: connect }: Surroundings,
): Ports {
  const spawn = connect(config.spawnSocket)
  const tenants = openTenants({
    stateDir: config.stateDir,
    issuer: `https://casemate.invalid/${config.node}`,
    audience: `casemate:${config.node}`,
    now,
  })
  return {
    tenants,
    images: createImages({
      directory: path.join(config.stateDir, 'images'),
      allowances: config.registries,
      runWorker: (work) => spawn.worker(work),
      openRootImages: async () =>
        (await tenants.unfinishedPods()).map(rootImageOf).filter((one) => one !== null),
      onEvicted: evictionNotes(audit, log),
    }),
    audit,
    clock: systemClock(),
    safety: new HostSafety(new HostRoot(root), audit),
    now,
    spawn,
    launchers: launchers(spawn),
    seccomp: seccompCompiler(spawn),
    files: new PodFiles(path.join(config.stateDir, 'pods')),
    policies: activatePolicies(DEFAULT_POLICIES),
    imageFloor: config.imageFloor === null ? null : parseImageRule(config.imageFloor),
    resolver: config.resolver,
    ages: config.ages,
    log,
  }
}

async function listen(
  config: AgentConfig,
  ports: LaunchPorts,
): Promise<readonly FastifyInstance[]> {
  const identity = {
    operators: new Set(config.operators),
    verifyToken: (token: string) => ports.tenants.verifyToken(token),
  }
  const common = {
    requestsPerMinute: config.requestsPerMinute,
    log: ports.log,
    routes: allRoutes(ports, new OpenAnswers()),
    live: ports.live,
  }
  const socket = path.join(config.runDir, AGENT_SOCKET)
  const unix = await buildServer({
    ...common,
    tls: null,
    identity: { ...identity, transport: 'unix' },
  })
  await rm(socket, { force: true })
  await unix.listen({ path: socket })
  // Who somebody is counts, not what they may open: docs/decisions/0015-operators-by-peer.md.
  await chmod(socket, 0o666)
  if (config.httpsPort === null) return [unix]
  const tls = await loadTlsPair(path.join(config.stateDir, 'tls'), new Date())
  await publishCertificate(config.runDir, tls)
  const https = await buildServer({ ...common, tls, identity: { ...identity, transport: 'https' } })
  await https.listen({ host: LOOPBACK, port: config.httpsPort })
  return [unix, https]
}

/** Starts the agent. @throws when something it cannot work without is missing or damaged */
export async function compose(
  config: AgentConfig,
  log: FastifyBaseLogger,
  surroundings: Partial<Surroundings> = {},
): Promise<Agent> {
  await mkdir(path.join(config.stateDir, 'pods'), { recursive: true, mode: 0o700 })
  const audit = await openAudit(config, log)
  const base = makePorts(config, log, audit, { ...HERE, ...surroundings })
  const watch = new Watch(base, log)
  const refusals = new Refusals(audit, log)
  const launching = new Launching()
  const ports: LaunchPorts = {
    ...base,
    watch,
    refusals,
    templates: new Templates(base),
    budgets: new LaunchBudgets(),
    changes: new ChangeBudget(),
    pauses: new Pauses(),
    execs: new ExecCounts(),
    live: new LiveTokens(base.now),
    events: new EventIndex(base),
    drain: new Drain({ ...base, watch, launching }),
    launching,
  }
  await ports.events.start()
  await ports.drain.start()
  const housekeeping = new Housekeeping(ports, await findInterrupted(ports))
  const restarts = new Restarts(ports)
  stopUnhealthy(ports)
  const servers = await listen(config, ports)
  await housekeeping.start()
  restarts.start()
  log.info({ node: config.node, version: VERSION }, 'the agent serves')
  /** First: nothing may be launched behind the back of what follows. */
  const closeDoors = async (): Promise<void> => {
    restarts.stop()
    await Promise.all([launching.close(PATIENCE_MS), ports.execs.stop()])
    await Promise.all(servers.map((server) => server.close()))
  }
  const release = async (reason: string): Promise<void> => {
    housekeeping.stop()
    await ports.drain.stop()
    watch.close()
    await refusals.flush()
    await watch.note({ type: 'agent.stop', pid: process.pid, reason })
    await ports.events.stop()
    await audit.close()
    await ports.tenants.close()
  }
  return {
    close: async (reason) => {
      await closeDoors()
      await release(reason)
    },
    closeWithPods: async (reason) => {
      await closeDoors()
      await stopAll(ports)
      await release(reason)
    },
  }
}
