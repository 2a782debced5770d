/**
 * The other end of spawn's socket, for tests of what the agent makes of answers. It takes requests
 * apart for real and starts nothing; what it says is what the test told it to say.
 */
import { createServer, type Server, type Socket } from 'node:net'
import { type Canonical, canonicalBytes } from '../../policy/canonical.ts'

type Answer = (request: Record<string, unknown>) => Canonical | Promise<Canonical>
export type Answers = Readonly<Record<string, Answer>>

const digest = (digit: string): string => `sha256:${digit.repeat(64)}`

/** A host with software KVM that root allowed, and no template. */
export const DESCRIPTION: { readonly [name: string]: Canonical } = {
  ok: true,
  node: 'test-host',
  boot_id: '11111111-2222-3333-4444-555555555555',
  kvm: 'software',
  kvm_reason: null,
  allow_software_kvm: true,
  host: {
    core_scheduling: false,
    kvm_api: 12,
    kvm_missing: [],
    landlock: 6,
    swap_limit: true,
  },
  vmm: {
    digest: digest('1'),
    filters: { control: digest('2'), io: digest('3'), vcpu: digest('4') },
  },
  kernel: { digest: digest('5'), size: 20_000_000 },
  cmdline: 'console=ttyS0',
  container: null,
  container_reason: 'this peer starts none',
  init: { size: 8192, verity: { data_blocks: 2, root: '00'.repeat(32), salt: '' } },
  scratch: { blocks: digest('6'), size: 1 << 20 },
  templates: [],
  levels: {},
  host_paths: {},
}

export interface SpawnPeer {
  readonly path: string
  /** Every request that came, in order. */
  readonly requests: Record<string, unknown>[]
  /** Changes what is answered from now on. */
  answer(op: string, answer: Answer): void
  close(): Promise<void>
}

function frame(value: Canonical): Buffer {
  const bytes = canonicalBytes(value)
  const length = Buffer.alloc(4)
  length.writeUInt32LE(bytes.length)
  return Buffer.concat([length, bytes])
}

function serve(socket: Socket, take: Answer): void {
  let held = Buffer.alloc(0)
  socket.on('error', () => undefined)
  socket.on('data', (chunk: Buffer) => {
    held = Buffer.concat([held, chunk])
    if (held.length < 4 || held.length < 4 + held.readUInt32LE(0)) return
    const request: Record<string, unknown> = JSON.parse(held.toString('utf8', 4))
    void Promise.resolve(take(request)).then((answer) => socket.end(frame(answer)))
  })
}

const unknown = (): Canonical => ({ ok: false, code: 'POD_UNKNOWN', message: 'no such pod' })

/** Listens at `path`. Without other answers: the host above, no pods, and no template is built. */
export async function spawnPeer(path: string, answers: Answers = {}): Promise<SpawnPeer> {
  const requests: Record<string, unknown>[] = []
  const known = new Map<string, Answer>(
    Object.entries<Answer>({
      describe: () => DESCRIPTION,
      list: () => ({ ok: true, pods: [] }),
      template: () => ({ ok: false, code: 'KVM_BUSY', message: 'not now' }),
      ...answers,
    }),
  )
  const server: Server = createServer((socket) => {
    serve(socket, (request) => {
      requests.push(request)
      return (known.get(String(request['op'])) ?? unknown)(request)
    })
  })
  await new Promise<void>((resolve) => server.listen(path, resolve))
  return {
    path,
    requests,
    answer: (op, answer) => known.set(op, answer),
    close: () => new Promise((resolve) => server.close(() => resolve())),
  }
}
