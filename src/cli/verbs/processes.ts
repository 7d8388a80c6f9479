import { setTimeout as delay } from 'node:timers/promises';
import { Type } from 'typebox';
import { fault } from '../../protocol/errors.ts';
import { askHost, connectionTo, ProcessListSchema, type Connection, type ProcessItem } from '../client.ts';
import { exitCodes } from '../failure.ts';
import { nearest } from '../../protocol/nearest.ts';
import type { Terminal } from '../terminal.ts';

/** How long `start` waits for a process to do what it is for, and how often it looks. */
const startedWaitMs = 60_000;
const lookIntervalMs = 100;

/** `stop` and `start`: asks the host, which needs no control plane for it. */
export async function runProcesses(
  terminal: Terminal,
  action: 'stop' | 'start',
  names: readonly string[],
  options: { readonly data: string },
): Promise<number> {
  const connection = await connectionTo(terminal, options.data);
  const { items } = await askHost(connection, { path: '/v1/processes' }, ProcessListSchema);
  const known = items.map(({ name }) => name);
  for (const name of names) if (!known.includes(name)) throw unknownProcess(name, known);
  const { out } = terminal;
  for (const name of names) {
    await askHost(
      connection,
      { method: 'POST', path: `/v1/processes/${encodeURIComponent(name)}/${action}` },
      Type.Unknown(),
    );
    if (action === 'stop') {
      await settled(connection, name, ['held']);
      out.write(`${name} ${out.colors.yellow('held')}; it stays down until: cellwright start ${name}\n`);
    } else {
      const { state } = await settled(connection, name, running);
      out.write(`${name} ${state === 'refusing' ? out.colors.red(state) : out.colors.green(state)}\n`);
    }
  }
  return exitCodes.done;
}

const running = ['serving', 'running', 'refusing'];

async function settled(connection: Connection, name: string, states: readonly string[]): Promise<ProcessItem> {
  const deadline = performance.now() + startedWaitMs;
  for (;;) {
    const { items } = await askHost(connection, { path: '/v1/processes' }, ProcessListSchema);
    const item = items.find((process) => process.name === name);
    if (item === undefined) throw fault('resource-unknown', `The process ${name} is not there any more.`);
    if (states.includes(item.state)) return item;
    if (item.state === 'failed' || performance.now() > deadline) {
      const problem = item.problem === undefined || item.problem === null ? '' : ` (${item.problem.detail})`;
      throw fault('start-failed', `${name} is ${item.state}${problem}. Look at: cellwright logs ${name}`);
    }
    await delay(lookIntervalMs);
  }
}

function unknownProcess(name: string, known: readonly string[]) {
  const meant = nearest(name, known);
  const hint = meant === undefined ? '' : ` Did you mean ${meant}?`;
  return fault('resource-unknown', `There is no process "${name}".${hint} There are ${known.join(', ')}.`, {
    field: name,
  });
}
