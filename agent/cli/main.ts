#!/usr/bin/env node
/** casemate: the command line. Data on standard output, words on standard error. */
import { Command, CommanderError, Option } from 'commander'
import { VERSION } from '../version.ts'
import { UsageError } from './arguments.ts'
import { addAttach } from './attach.ts'
import { addAudit } from './audit.ts'
import { ProblemError, Unreachable } from './client.ts'
import { addCopy } from './cp.ts'
import { addDebug } from './debug.ts'
import { addEvents } from './events.ts'
import { addExec } from './exec.ts'
import { EXIT, exitCodeOf } from './exit-codes.ts'
import { addGc } from './gc.ts'
import { addHost } from './host.ts'
import { addImages } from './images.ts'
import { plain, printJson, say } from './output.ts'
import { addPodControl } from './pod-control.ts'
import { addPods } from './pods.ts'
import { addRun } from './run.ts'
import { addStoredFiles } from './stored-files.ts'
import { addTenants, addTokens } from './tenants.ts'
import { addTop } from './top.ts'
import { addVolumes } from './volumes.ts'

function programOf(): Command {
  const program = new Command('casemate')
    .version(VERSION)
    .description('runs signed images of tenants, untrusted ones in virtual machines, all on record')
    .option('--socket <path>', 'the agent’s unix socket (CASEMATE_SOCKET)')
    .option('--url <url>', 'the agent’s HTTPS address in place of it (CASEMATE_URL)')
    .option('--ca <file>', 'certificate to trust (CASEMATE_CA)')
    .option('--token-file <file>', 'access token; - reads standard input (CASEMATE_TOKEN_FILE)')
    .option('-t, --tenant <tenant>', 'which tenant (CASEMATE_TENANT); else the token’s')
    .addOption(new Option('-o, --output <form>').choices(['table', 'json']).default('table'))
    .showHelpAfterError('(--help shows how it is used)')
    .exitOverride()
  addRun(program)
  addPods(program)
  addPodControl(program)
  addDebug(program)
  addEvents(program)
  addAttach(program)
  addExec(program)
  addCopy(program)
  addTop(program)
  addVolumes(program)
  addTenants(program)
  addTokens(program)
  addStoredFiles(program)
  addImages(program)
  addAudit(program)
  addHost(program)
  addGc(program)
  return program
}

function codeOf(error: unknown): number {
  const own: unknown = error instanceof Error ? Reflect.get(error, 'exitCode') : undefined
  if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT.ok : EXIT.usage
  if (typeof own === 'number') return own
  if (error instanceof ProblemError) return exitCodeOf(error.code)
  if (error instanceof Unreachable) return EXIT.unreachable
  if (error instanceof UsageError) return EXIT.usage
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
  return typeof code === 'string' ? exitCodeOf(code) : EXIT.error
}

function tell(error: unknown, json: boolean): void {
  if (error instanceof CommanderError) return // it has said so itself
  if (error instanceof ProblemError && json) printJson(error.document)
  const code: unknown = error instanceof Error ? Reflect.get(error, 'code') : undefined
  const words = error instanceof Error ? error.message : String(error)
  say(`casemate: ${plain(words)}${typeof code === 'string' ? ` (${code})` : ''}`)
}

const program = programOf()
try {
  await program.parseAsync()
} catch (error) {
  tell(error, program.opts<{ output: string }>().output === 'json')
  process.exitCode = codeOf(error)
}
