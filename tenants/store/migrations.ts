/**
 * The schema, step by step. Steps are only ever added: a database remembers each step's digest, and
 * a step that was edited later is refused. `user_version` is the number of steps applied.
 */
import { createHash } from 'node:crypto'
import type { DatabaseSync } from 'node:sqlite'
import { TenantsError } from '../errors.ts'

const FIRST = `
CREATE TABLE tenants (
  id TEXT PRIMARY KEY,
  display TEXT NOT NULL,
  trust TEXT NOT NULL DEFAULT 'untrusted' CHECK (trust IN ('untrusted', 'verified', 'trusted')),
  state TEXT NOT NULL DEFAULT 'active' CHECK (state IN ('active', 'suspended')),
  created_ms INTEGER NOT NULL,
  image_rule TEXT CHECK (image_rule IS NULL OR json_valid(image_rule)),
  image_rule_digest TEXT CHECK ((image_rule IS NULL) = (image_rule_digest IS NULL)),
  quota_vcpus INTEGER NOT NULL CHECK (quota_vcpus >= 0),
  quota_memory_mib INTEGER NOT NULL CHECK (quota_memory_mib >= 0),
  quota_pods INTEGER NOT NULL CHECK (quota_pods >= 0),
  used_vcpus INTEGER NOT NULL DEFAULT 0 CHECK (used_vcpus >= 0),
  used_memory_mib INTEGER NOT NULL DEFAULT 0 CHECK (used_memory_mib >= 0),
  used_pods INTEGER NOT NULL DEFAULT 0 CHECK (used_pods >= 0)
) STRICT;
CREATE TABLE pods (
  id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL REFERENCES tenants (id),
  state TEXT NOT NULL
    CHECK (state IN ('requested', 'launching', 'running', 'exited', 'failed', 'refused')),
  identity TEXT NOT NULL,
  image_reference TEXT NOT NULL,
  image_digest TEXT,
  level TEXT CHECK (level IN ('host', 'container', 'vm')),
  spec_digest TEXT,
  record_index INTEGER CHECK (record_index >= 0),
  reserved INTEGER NOT NULL DEFAULT 0 CHECK (reserved IN (0, 1)),
  vcpus INTEGER NOT NULL DEFAULT 0,
  memory_mib INTEGER NOT NULL DEFAULT 0,
  created_ms INTEGER NOT NULL,
  started_ms INTEGER,
  ended_ms INTEGER,
  exit TEXT CHECK (exit IS NULL OR json_valid(exit)),
  problem TEXT CHECK (problem IS NULL OR json_valid(problem)),
  facts TEXT CHECK (facts IS NULL OR json_valid(facts)),
  CHECK (reserved = 0 OR state IN ('requested', 'launching', 'running'))
) STRICT;
CREATE UNIQUE INDEX pods_of_tenant ON pods (tenant, id);
CREATE INDEX pods_unfinished ON pods (state) WHERE state IN ('requested', 'launching', 'running');
CREATE TABLE idempotency (
  tenant TEXT NOT NULL REFERENCES tenants (id),
  identity TEXT NOT NULL,
  key TEXT NOT NULL,
  body_digest TEXT NOT NULL,
  pod TEXT NOT NULL,
  status INTEGER,
  response TEXT CHECK ((status IS NULL) = (response IS NULL)),
  expires_ms INTEGER NOT NULL,
  PRIMARY KEY (tenant, identity, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_expires ON idempotency (expires_ms);
CREATE TABLE tokens (
  jti TEXT PRIMARY KEY,
  tenant TEXT NOT NULL REFERENCES tenants (id),
  name TEXT NOT NULL,
  issued_ms INTEGER NOT NULL,
  expires_ms INTEGER NOT NULL,
  revoked_ms INTEGER
) STRICT;
CREATE INDEX tokens_expires ON tokens (expires_ms);
`

/** Answers are written and given up by pod; without it each would look at all keys of the tenant. */
const SECOND = `CREATE INDEX idempotency_pod ON idempotency (tenant, pod);`

/** What operators set aside of a host's findings; one row a finding, also when its time is over. */
const THIRD = `
CREATE TABLE host_exceptions (
  finding TEXT PRIMARY KEY,
  reason TEXT NOT NULL,
  identity TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  until_ms INTEGER NOT NULL,
  record_index INTEGER NOT NULL CHECK (record_index >= 0)
) STRICT, WITHOUT ROWID;
`

/** So that a stop has one record also when the agent was restarted since, and the exit its reason. */
const FOURTH = `ALTER TABLE pods
  ADD COLUMN stop_recorded INTEGER NOT NULL DEFAULT 0 CHECK (stop_recorded IN (0, 1));`

/** What a tenant of before gets is what a new one gets that is created without quotas. */
const FIFTH = `ALTER TABLE tenants
  ADD COLUMN quota_launches_per_minute INTEGER NOT NULL DEFAULT 30
  CHECK (quota_launches_per_minute >= 1);`

/** A tenant's network, for ever, and a pod's place on it, for as long as it holds its reservation. */
const SIXTH = `
ALTER TABLE tenants ADD COLUMN network INTEGER CHECK (network BETWEEN 1 AND 2047);
CREATE UNIQUE INDEX tenants_network ON tenants (network) WHERE network IS NOT NULL;
ALTER TABLE pods ADD COLUMN address INTEGER
  CHECK (address IS NULL OR (reserved = 1 AND address BETWEEN 2 AND 254));
CREATE UNIQUE INDEX pods_address ON pods (tenant, address) WHERE address IS NOT NULL;
`

/** A pod's further starts, and what they are launched with: docs/decisions/0027-a-restart-is-a-launch.md. */
const SEVENTH = `
ALTER TABLE pods ADD COLUMN origin TEXT NOT NULL DEFAULT '';
UPDATE pods SET origin = id;
ALTER TABLE pods ADD COLUMN attempt INTEGER NOT NULL DEFAULT 0 CHECK (attempt >= 0);
CREATE UNIQUE INDEX pods_starts ON pods (tenant, origin, attempt);
ALTER TABLE pods ADD COLUMN restart_rule TEXT;
ALTER TABLE pods ADD COLUMN restart_streak INTEGER NOT NULL DEFAULT 0 CHECK (restart_streak >= 0);
ALTER TABLE pods ADD COLUMN restart_due_ms INTEGER CHECK (restart_due_ms IS NULL
  OR (restart_rule IS NOT NULL AND state IN ('exited', 'failed')));
CREATE INDEX pods_due ON pods (restart_due_ms) WHERE restart_due_ms IS NOT NULL;
ALTER TABLE pods ADD COLUMN stop_asked INTEGER NOT NULL DEFAULT 0
  CHECK (stop_asked IN (0, 1) AND (stop_asked = 0 OR restart_due_ms IS NULL));
CREATE TABLE restart_requests (
  origin TEXT PRIMARY KEY,
  tenant TEXT NOT NULL REFERENCES tenants (id),
  request TEXT NOT NULL CHECK (json_valid(request))
) STRICT, WITHOUT ROWID;
`

/** What a tenant's pods may reach. */
const EIGHTH = 'ALTER TABLE tenants ADD COLUMN egress TEXT;'

/** What people call a pod, on each of its starts; a name is taken while its pod has not ended. */
const NINTH = `
ALTER TABLE pods ADD COLUMN name TEXT;
CREATE UNIQUE INDEX pods_name ON pods (tenant, name)
  WHERE name IS NOT NULL AND (ended_ms IS NULL OR restart_due_ms IS NOT NULL);
ALTER TABLE pods ADD COLUMN labels TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(labels));
ALTER TABLE pods ADD COLUMN annotations TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(annotations));
`

/** Ports that a tenant may publish, and those that pods have. */
const TENTH = `
ALTER TABLE tenants ADD COLUMN ports TEXT;
CREATE TABLE published_ports (
  protocol TEXT NOT NULL CHECK (protocol = 'tcp'),
  address TEXT NOT NULL,
  port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
  tenant TEXT NOT NULL REFERENCES tenants (id),
  pod TEXT NOT NULL,
  PRIMARY KEY (protocol, address, port)
) STRICT, WITHOUT ROWID;
CREATE INDEX published_ports_pod ON published_ports (pod);
`

/** UDP beside TCP. */
const UDP_PORTS = `
CREATE TABLE ports_of_both (
  protocol TEXT NOT NULL CHECK (protocol IN ('tcp', 'udp')),
  address TEXT NOT NULL,
  port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
  tenant TEXT NOT NULL REFERENCES tenants (id),
  pod TEXT NOT NULL,
  PRIMARY KEY (protocol, address, port)
) STRICT, WITHOUT ROWID;
INSERT INTO ports_of_both SELECT protocol, address, port, tenant, pod FROM published_ports;
DROP TABLE published_ports;
ALTER TABLE ports_of_both RENAME TO published_ports;
CREATE INDEX published_ports_pod ON published_ports (pod);
`

/** Which records of the log are whose: events.ts. */
const EVENTS = `
CREATE TABLE events (
  record INTEGER PRIMARY KEY CHECK (record >= 0),
  subject TEXT NOT NULL,
  time_ms INTEGER NOT NULL,
  launch TEXT,
  pod TEXT,
  attempt INTEGER,
  name TEXT,
  labels TEXT NOT NULL CHECK (json_valid(labels))
) STRICT;
CREATE INDEX events_subject ON events (subject, record);
CREATE INDEX events_launch ON events (launch, record) WHERE launch IS NOT NULL;
CREATE TABLE event_floors (subject TEXT PRIMARY KEY, floor INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE event_position (
  id INTEGER PRIMARY KEY CHECK (id = 0),
  next INTEGER NOT NULL CHECK (next >= 0)
) STRICT;
`

/** The host takes no pods: drain.ts. Ended pods are counted by when they ended. */
const DRAIN = `
CREATE TABLE host_drain (
  id INTEGER PRIMARY KEY CHECK (id = 0),
  since_ms INTEGER NOT NULL,
  until_ms INTEGER NOT NULL,
  identity TEXT NOT NULL,
  reported_ms INTEGER
) STRICT;
CREATE INDEX pods_ended ON pods (ended_ms) WHERE ended_ms IS NOT NULL;
`

/** Whether a row of pods is an end that nothing follows by a rule: what is counted for each tenant. */
const over = (row: string): string =>
  `(${row}.state IN ('exited', 'failed', 'refused') AND ${row}.restart_due_ms IS NULL)`
const count = (row: string, change: string): string =>
  `UPDATE tenants SET ended_pods = ended_pods ${change} WHERE id = ${row}.tenant;`

/** How many ended starts each tenant has, whoever writes: ended.ts. */
const ENDED = `
ALTER TABLE tenants ADD COLUMN ended_pods INTEGER NOT NULL DEFAULT 0 CHECK (ended_pods >= 0);
UPDATE tenants SET ended_pods =
  (SELECT count(*) FROM pods WHERE pods.tenant = tenants.id AND ${over('pods')});
CREATE INDEX tenants_ended_pods ON tenants (ended_pods);
CREATE INDEX pods_over ON pods (tenant, id)
  WHERE state IN ('exited', 'failed', 'refused') AND restart_due_ms IS NULL;
CREATE TRIGGER pods_over_inserted AFTER INSERT ON pods WHEN ${over('NEW')}
  BEGIN ${count('NEW', '+ 1')} END;
CREATE TRIGGER pods_over_deleted AFTER DELETE ON pods WHEN ${over('OLD')}
  BEGIN ${count('OLD', '- 1')} END;
CREATE TRIGGER pods_over_begun AFTER UPDATE OF state, restart_due_ms ON pods
  WHEN ${over('NEW')} AND NOT ${over('OLD')} BEGIN ${count('NEW', '+ 1')} END;
CREATE TRIGGER pods_over_ended AFTER UPDATE OF state, restart_due_ms ON pods
  WHEN ${over('OLD')} AND NOT ${over('NEW')} BEGIN ${count('OLD', '- 1')} END;
`

/** Configs and secrets, encrypted: docs/decisions/0029-mounts-from-inside.md. Nonce and content are base64. */
const STORED_FILES = `
CREATE TABLE stored_files (
  tenant TEXT NOT NULL REFERENCES tenants (id),
  kind TEXT NOT NULL CHECK (kind IN ('config', 'secret')),
  name TEXT NOT NULL,
  version TEXT NOT NULL,
  size INTEGER NOT NULL CHECK (size BETWEEN 0 AND 524288),
  identity TEXT NOT NULL,
  created_ms INTEGER NOT NULL,
  key_id TEXT NOT NULL,
  nonce TEXT NOT NULL,
  sealed TEXT NOT NULL,
  PRIMARY KEY (tenant, kind, name)
) STRICT;
`

/** What spawn keeps of volumes is spawn's to know; only the quota is here. */
const VOLUME_QUOTA = `
ALTER TABLE tenants
  ADD COLUMN quota_volumes INTEGER NOT NULL DEFAULT 8 CHECK (quota_volumes >= 0);
ALTER TABLE tenants
  ADD COLUMN quota_volume_mib INTEGER NOT NULL DEFAULT 10240 CHECK (quota_volume_mib >= 0);
`

const MIGRATIONS: readonly string[] = [
  FIRST,
  SECOND,
  THIRD,
  FOURTH,
  FIFTH,
  SIXTH,
  SEVENTH,
  EIGHTH,
  NINTH,
  TENTH,
  UDP_PORTS,
  EVENTS,
  DRAIN,
  ENDED,
  STORED_FILES,
  VOLUME_QUOTA,
]

/** What `user_version` is when all steps are applied. */
export const SCHEMA_VERSION: number = MIGRATIONS.length

const LEDGER = `CREATE TABLE IF NOT EXISTS migrations (
  version INTEGER PRIMARY KEY,
  sha256 TEXT NOT NULL
) STRICT;`

const digestOf = (step: string): string => createHash('sha256').update(step).digest('hex')

/**
 * Applies the missing steps in one transaction.
 * @throws TenantsError STORE_NEWER, STORE_FOREIGN
 */
export function migrate(database: DatabaseSync, applicationId: number): void {
  database.exec('BEGIN IMMEDIATE')
  try {
    const version = versionOf(database)
    checkLedger(database, version)
    for (const [index, step] of MIGRATIONS.entries()) {
      if (index < version) continue
      database.exec(step)
      database
        .prepare('INSERT INTO migrations (version, sha256) VALUES (?, ?)')
        .run(index + 1, digestOf(step))
    }
    // Pragmas take no parameters; both are numbers of this program.
    database.exec(`PRAGMA application_id = ${applicationId}`)
    database.exec(`PRAGMA user_version = ${SCHEMA_VERSION}`)
    database.exec('COMMIT')
  } catch (error) {
    if (database.isTransaction) database.exec('ROLLBACK')
    throw error
  }
}

/** @throws TenantsError STORE_NEWER */
export function versionOf(database: DatabaseSync): number {
  const version = Number(database.prepare('PRAGMA user_version').get()?.['user_version'])
  if (version > SCHEMA_VERSION) {
    throw new TenantsError(
      'STORE_NEWER',
      `The database has schema ${version} and this Casemate knows ${SCHEMA_VERSION}: it was written by a newer version. Start that version, or restore a backup of before the upgrade.`,
      { version, known: SCHEMA_VERSION },
    )
  }
  return version
}

function checkLedger(database: DatabaseSync, version: number): void {
  database.exec(LEDGER)
  const rows = database.prepare('SELECT version, sha256 FROM migrations ORDER BY version').all()
  const same =
    rows.length === version &&
    rows.every((row, index) => row['sha256'] === digestOf(MIGRATIONS[index] ?? ''))
  if (same) return
  throw new TenantsError(
    'STORE_FOREIGN',
    `The database's schema ${version} was made by other steps than this Casemate's. Start the version that made it.`,
    { version },
  )
}
