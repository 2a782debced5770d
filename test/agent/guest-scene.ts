/** An agent with a pod of acme's that runs, and whose guest the test is. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { GuestPeer, withGuest } from './guest-peer.ts'
import { type HarnessOptions, startAgent, type TestAgent } from './harness.ts'
import { leaveRunning } from './left-pod.ts'

export interface GuestScene {
  readonly agent: TestAgent
  /** Of acme's. */
  readonly token: string
  readonly guest: GuestPeer
}

/** At the test's end the guest has heard nothing that is against the rules. */
export async function guestScene(
  t: TestContext,
  options: HarnessOptions = {},
): Promise<GuestScene> {
  const guest = new GuestPeer()
  const agent = await startAgent(t, { ...options, surroundings: { spawn: withGuest(t, guest) } })
  const token = await agent.onboard('acme')
  await leaveRunning(agent)
  await agent.again()
  t.after(() => assert.deepEqual(guest.wrong, []))
  return { agent, token, guest }
}
