/** The host's findings for the tasks: looked up when asked, and on record before a launch names them. */
import type { RecordBodies } from '../../audit/index.ts'
import type { HostDescription } from '../../native/spawn-answers.ts'
import type { AuditPort } from '../audit-gate.ts'
import { examineHost, type HostReport, recordedFindings } from './report.ts'
import type { HostRoot } from './root.ts'

interface Noted {
  readonly digest: string
  readonly done: Promise<unknown>
}

const bodyOf = (report: HostReport): { type: 'host.examined' } & RecordBodies['host.examined'] => ({
  type: 'host.examined',
  kvm: report.kvm,
  findings: recordedFindings(report.findings),
  digest: report.digest,
})

export class HostSafety {
  readonly #root: HostRoot
  readonly #audit: Pick<AuditPort, 'append'>
  /** The report that was put on record last, or is just now. */
  #noted: Noted | null = null

  constructor(root: HostRoot, audit: Pick<AuditPort, 'append'>) {
    this.#root = root
    this.#audit = audit
  }

  get root(): HostRoot {
    return this.#root
  }

  async examine(host: HostDescription): Promise<HostReport> {
    return await examineHost(this.#root, host)
  }

  /**
   * Puts a report on record unless it says what the last one said. Tenants cannot make reports
   * differ, so they cannot fill the log this way.
   * @throws AuditUnavailable
   */
  async note(report: HostReport): Promise<void> {
    if (this.#noted?.digest !== report.digest) {
      const { digest } = report
      this.#noted = { digest, done: this.#audit.append(bodyOf(report)) }
    }
    const noted = this.#noted
    try {
      await noted.done
    } catch (error) {
      if (this.#noted === noted) this.#noted = null
      throw error
    }
  }
}
