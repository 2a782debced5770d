/**
 * Messages of the Kubernetes channel protocol over a WebSocket, `v5.channel.k8s.io` (and v4, which only lacks the
 * message that closes a channel): one byte of channel, then its bytes.
 */

export const PROTOCOLS: readonly string[] = ['v5.channel.k8s.io', 'v4.channel.k8s.io']

export const CHANNELS: Readonly<
  Record<'stdin' | 'stdout' | 'stderr' | 'error' | 'resize' | 'close', number>
> = { stdin: 0, stdout: 1, stderr: 2, error: 3, resize: 4, close: 255 }

/** Most bytes of one message, both ways. */
export const MESSAGE_BYTES_MAX: number = 1 << 20
const SIZE_MAX = 65_535

/** What a caller says. */
export type Incoming =
  | { readonly kind: 'stdin'; readonly bytes: Buffer }
  | { readonly kind: 'stdin-end' }
  | { readonly kind: 'resize'; readonly rows: number; readonly columns: number }
  /** Nothing to do: an empty message opens a channel in some clients. */
  | { readonly kind: 'none' }

export class BadMessage extends Error {
  override readonly name = 'BadMessage'
}

function sizeIn(text: string): Incoming {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (cause) {
    throw new BadMessage('a message on the resize channel is no JSON', { cause })
  }
  const number = (name: string): number => {
    const found: unknown =
      typeof value === 'object' && value !== null ? Reflect.get(value, name) : 0
    if (typeof found !== 'number' || !Number.isInteger(found) || found < 0 || found > SIZE_MAX) {
      throw new BadMessage(`a terminal's ${name} must be 0 to ${SIZE_MAX}`)
    }
    return found
  }
  return { kind: 'resize', rows: number('Height'), columns: number('Width') }
}

/** @throws BadMessage */
export function readMessage(message: Buffer): Incoming {
  const [channel] = message
  const rest = message.subarray(1)
  if (channel === CHANNELS.stdin) {
    return rest.length === 0 ? { kind: 'none' } : { kind: 'stdin', bytes: rest }
  }
  if (channel === CHANNELS.resize)
    return rest.length === 0 ? { kind: 'none' } : sizeIn(rest.toString())
  if (channel === CHANNELS.close && rest.length === 1) {
    return rest[0] === CHANNELS.stdin ? { kind: 'stdin-end' } : { kind: 'none' }
  }
  throw new BadMessage('a message is of a channel that callers do not write to')
}

export const message = (channel: number, bytes: Uint8Array): Buffer =>
  Buffer.concat([Buffer.from([channel]), bytes])

/** The last message of a session: metav1.Status, as clients of Kubernetes read it. */
export type Status =
  | { readonly status: 'Success' }
  | {
      readonly status: 'Failure'
      readonly reason: string
      readonly message: string
      readonly details: {
        readonly causes: readonly { readonly reason: string; readonly message: string }[]
      }
    }

export const SUCCESS: Status = { status: 'Success' }

/** An exit code that is not 0; signals as a shell says them. */
export const nonZeroExit = (
  code: number,
  sentence = `command terminated with exit code ${code}`,
): Status => ({
  status: 'Failure',
  reason: 'NonZeroExitCode',
  message: sentence,
  details: { causes: [{ reason: 'ExitCode', message: String(code) }] },
})

/** It did not run, or nobody knows how it ended; `code` is a stable one of ours. */
export const failure = (code: string, sentence: string): Status => ({
  status: 'Failure',
  reason: 'InternalError',
  message: sentence,
  details: { causes: [{ reason: 'Casemate', message: code }] },
})

export const statusMessage = (status: Status): Buffer =>
  message(CHANNELS.error, Buffer.from(JSON.stringify({ metadata: {}, ...status })))
