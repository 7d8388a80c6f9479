import type { Condition } from '../../protocol/resources.ts';
import { invariantsListedMax, quarantinedListedMax, type MachineStatus } from '../../protocol/status.ts';
import type { Verified } from '../../machine/serve/replica/verified.ts';

/** How much of a reason a status carries, in UTF-16 code units; the evidence has all of it. */
const reasonUnitsMax = 400;

/** What a cell says of its machine, within the bounds of a status. */
export function machineStatus({ quarantine, runtime, replica }: Verified): MachineStatus {
  return {
    quarantined: {
      total: quarantine.size,
      tenants: quarantine
        .list()
        .slice(0, quarantinedListedMax)
        .map(({ instance, at, reason, file }) => {
          return { tenant: instance, since: at, reason: cut(reason), evidence: file };
        }),
    },
    invariants: [...runtime.invariants.entries()]
      .map(([name, count]) => ({ name, ...count }))
      .sort((a, b) => b.violations + b.reports - (a.violations + a.reports))
      .slice(0, invariantsListedMax),
    ...(replica === undefined ? {} : { replica }),
  };
}

/** Whether every tenant's state is what its records lead to, as far as anybody looked. */
export function statesCondition({ quarantine, replica }: Verified): Condition {
  const type = 'StatesProven';
  if (quarantine.size > 0) {
    const named = quarantine.list().slice(0, 5);
    const names = named.map(({ instance }) => instance).join(', ');
    const more = quarantine.size > named.length ? ` and ${quarantine.size - named.length} more` : '';
    const message = `Quarantined: ${names}${more}. See: cellwright quarantine list`;
    return { type, status: 'False', reason: 'Quarantined', message };
  }
  switch (replica?.state) {
    case undefined:
      return {
        type,
        status: 'True',
        reason: 'Hydrated',
        message: 'Every state that was loaded had its recorded hash.',
      };
    case 'off':
      return { type, status: 'Unknown', reason: 'ReplicaOff', message: 'The verifying replica failed and stays off.' };
    case 'starting':
      return { type, status: 'Unknown', reason: 'ReplicaStarting', message: 'The verifying replica is starting.' };
    case 'verifying': {
      const { verified, skipped } = replica;
      const message = `A replica found ${verified} records to agree, and did not see ${skipped}.`;
      return { type, status: 'True', reason: 'Verified', message };
    }
  }
}

function cut(text: string): string {
  return text.length <= reasonUnitsMax ? text : `${text.slice(0, reasonUnitsMax)}…`;
}
