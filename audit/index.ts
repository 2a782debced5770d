/** The audit log: what the rest of Casemate may use. */
export { type Clock, deadlineIn, systemClock } from './clock.ts'
export { AuditUnavailable } from './errors.ts'
export type { Appended, AuditLog, Entry } from './log.ts'
export { NoteError, parseVkey } from './note.ts'
export { type AuditLogOptions, logPaths, openAuditLog } from './open.ts'
export { AuditRollback } from './publisher.ts'
export { ReceiptMismatch, type VerifiedReceipt, verifyReceipt } from './receipt.ts'
export {
  type AuditRecord,
  RECORD_BYTES_MAX,
  type RecordBodies,
  type RecordBody,
  type RecordHead,
  RecordTooLarge,
  type RecordType,
} from './record.ts'
export type {
  Actor,
  Folded,
  HostFacts,
  ImageFacts,
  PolicyFacts,
  RefusalFacts,
  RestartFacts,
  StoredFileFacts,
} from './record-facts.ts'
export type { ContainerFacts, IsolationFacts } from './record-isolation.ts'
export { LogBusy } from './store/lock.ts'
export { AuditCorrupt } from './tiles.ts'
export { type Problem, type VerifyOptions, type VerifyReport, verifyLog } from './verify.ts'
