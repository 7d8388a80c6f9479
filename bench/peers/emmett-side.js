import { DeciderCommandHandler } from '@event-driven-io/emmett';
import { answerAsks } from '../machine/children.ts';
import { closedLoop } from '../machine/rounds.ts';
import { Workload } from '../machine/workload.ts';

/**
 * Emmett doing the same work: the orders example as a decider, one stream a tenant, optimistic concurrency, each command
 * durable before it is answered. Idempotency keys are left out, because Emmett has none.
 *
 * It is a file of JavaScript because its packages are installed on first use only, so that nothing can check its types.
 *
 * Asks: `open {store: 'sqlite' | 'postgres', place, connectionsMax, tenants}`, `round {count, concurrency}`, `close`.
 */
const stockMax = 1_000_000_000;

function refuse(code) {
  throw new Error(code);
}

const decider = {
  initialState: () => ({ orders: new Map(), stock: new Map() }),
  decide: ({ type, data }, { orders, stock }) => {
    const level = (item) => stock.get(item) ?? 0;
    switch (type) {
      case 'placeOrder':
        if (orders.has(data.id)) refuse('order-exists');
        if (level(data.item) < data.quantity) refuse('stockNeverNegative');
        return [{ type: 'orderPlaced', data }];
      case 'cancelOrder':
        return [{ type: 'orderCancelled', data: orders.get(data.id) ?? refuse('order-unknown') }];
      case 'addStock':
        if (level(data.item) + data.quantity > stockMax) refuse('stock-full');
        return [{ type: 'stockAdded', data }];
      default:
        return refuse('command-unknown');
    }
  },
  // In place: a copy of both maps at each event would only make it slower.
  evolve: (state, { type, data }) => {
    const change = type === 'orderPlaced' ? -data.quantity : data.quantity;
    state.stock.set(data.item, (state.stock.get(data.item) ?? 0) + change);
    if (type === 'orderPlaced') state.orders.set(data.id, data);
    if (type === 'orderCancelled') state.orders.delete(data.id);
    return state;
  },
};

let stores = [];
let close = async () => {};
let workload;

/**
 * Each connection of its own: a connection that two commands share is one transaction for both, and the first is
 * answered before it is committed.
 */
async function openSqlite(file, connectionsMax) {
  const { getSQLiteEventStore, sqliteConnection, SQLiteConnectionPool } =
    await import('@event-driven-io/emmett-sqlite');
  const connections = [];
  for (let i = 0; i < connectionsMax; i++) {
    const connection = sqliteConnection({ fileName: file });
    await connection.query('PRAGMA busy_timeout = 10000');
    await connection.command('PRAGMA synchronous = FULL');
    const [{ synchronous }] = await connection.query('PRAGMA synchronous');
    const [{ journal_mode: journalMode }] = await connection.query('PRAGMA journal_mode');
    if (synchronous !== 2 || journalMode !== 'wal') throw new Error('SQLite is not as durable as it was told to be');
    connections.push(connection);
    const pool = SQLiteConnectionPool({ fileName: file, connectionOptions: { singleton: true, connection } });
    const store = getSQLiteEventStore({ fileName: file, pool });
    await store.schema.migrate();
    stores.push(store);
  }
  return async () => connections.forEach((connection) => connection.close());
}

async function openPostgres(connectionString, connectionsMax) {
  const { getPostgreSQLEventStore } = await import('@event-driven-io/emmett-postgresql');
  const { dumbo } = await import('@event-driven-io/dumbo');
  const { Pool } = (await import('pg')).default;
  const pool = new Pool({ connectionString, max: connectionsMax });
  const shown = await pool.query("SELECT current_setting('fsync') f, current_setting('synchronous_commit') s");
  if (shown.rows[0].f !== 'on' || shown.rows[0].s !== 'on') throw new Error('PostgreSQL must sync each commit');
  const store = getPostgreSQLEventStore(connectionString, {
    connectionOptions: { dumbo: dumbo({ connectionString, pool, pooled: true }) },
  });
  await store.schema.migrate();
  stores = Array.from({ length: connectionsMax }, () => store);
  return async () => {
    await store.close();
    await pool.end();
  };
}

answerAsks(async (ask) => {
  switch (ask.do) {
    case 'open':
      stores = [];
      workload = new Workload(ask.tenants, false);
      close = await (ask.store === 'sqlite' ? openSqlite : openPostgres)(ask.place, ask.connectionsMax);
      return undefined;
    case 'round': {
      const handle = DeciderCommandHandler(decider);
      // Each caller has its own tenants, so that no command is refused for having met another.
      const queues = Array.from({ length: ask.concurrency }, () => []);
      for (const request of workload.take(ask.count)) {
        queues[Number(request.instance.slice('tenant-'.length)) % ask.concurrency].push(request);
      }
      return closedLoop(queues, ask.concurrency, async ({ instance, command, input }, caller) => {
        const result = await handle(stores[caller], instance, { type: command, data: input });
        if (result.newEvents.length !== 1) throw new Error('a command of the benchmark came to nothing');
      });
    }
    default:
      return close();
  }
});
