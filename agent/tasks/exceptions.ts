/**
 * Exceptions for the host's findings: an operator takes responsibility for one severe finding until a
 * day. Recording one is on record before it counts; taking it back counts whether or not the log can
 * be written, because it only makes the host stricter.
 */

import { type ExceptableId, parseExceptableId } from '../../policy/index.ts'
import {
  type OperatorScope,
  parseExceptionEnd,
  parseExceptionReason,
  type StoredException,
} from '../../tenants/index.ts'
import { ApiError, notFound } from '../errors.ts'
import { describeHost } from './host.ts'
import type { Ports } from './ports.ts'
import type { actorOf } from './record-parts.ts'
import type { Watch } from './watch.ts'

export interface ExceptionPorts extends Ports {
  readonly watch: Watch
}

type Actor = ReturnType<typeof actorOf>

/** What an operator wrote. */
export interface WantedException {
  readonly finding: string
  readonly reason: string
  readonly until: string
}

/** A mistyped id must not look like an exception that helps. @throws ApiError BAD_REQUEST */
async function insistFound(ports: Ports, finding: ExceptableId): Promise<void> {
  const report = await ports.safety.examine(await describeHost(ports.spawn))
  const severe = report.findings.filter((one) => one.severity === 'severe').map(({ id }) => id)
  if (severe.includes(finding)) return
  const found = severe.length > 0 ? severe.join(', ') : 'none'
  throw new ApiError(
    'BAD_REQUEST',
    `There is no severe finding ${finding} on this host now, so there is nothing to set aside. Severe now: ${found}.`,
    { severe },
  )
}

/** @throws BadNoun; ApiError BAD_REQUEST, SPAWN_UNAVAILABLE; AuditUnavailable */
export async function addException(
  ports: ExceptionPorts,
  operator: OperatorScope,
  actor: Actor,
  wanted: WantedException,
): Promise<StoredException> {
  const finding = parseExceptableId(wanted.finding)
  const reason = parseExceptionReason(wanted.reason)
  const untilMs = parseExceptionEnd(wanted.until, ports.now())
  await insistFound(ports, finding)
  const exception = { finding, reason, untilMs }
  return await ports.tenants.addHostException(operator, exception, async () => {
    const until = new Date(untilMs).toISOString()
    const body = { type: 'host.exception_added', finding, reason, until, actor } as const
    return (await ports.audit.append(body)).index
  })
}

/** @throws ApiError NOT_FOUND */
export async function removeException(
  ports: ExceptionPorts,
  operator: OperatorScope,
  actor: Actor,
  text: string,
): Promise<void> {
  const all = await ports.tenants.hostExceptions()
  const known = all.find(({ finding }) => finding === text)
  if (known === undefined) throw notFound()
  const { finding } = known
  if (!(await ports.tenants.removeHostException(operator, finding))) throw notFound()
  await ports.watch.note({ type: 'host.exception_removed', finding, actor })
}
