import type { Resource } from '../../protocol/resources.ts';
import { exitCodes, reportFailure } from '../failure.ts';
import type { Format } from '../output.ts';
import { asFault } from '../../protocol/problem.ts';
import type { Problem } from '../../protocol/problem.ts';
import { Progress, type StartNews } from '../progress.ts';
import { panel } from '../panel.ts';
import { onParentGone } from '../../process/parent.ts';
import { StopRequests } from '../stop-requests.ts';
import { aborted } from '../terminal.ts';
import { printable, type Terminal } from '../terminal.ts';
import { readOrRefuse } from './apply.ts';

/** A fleet file as it was read, before anything starts. */
export interface FleetFile {
  readonly items: readonly Resource[];
  /** Changes when what the file means does. */
  readonly sha256: string;
  readonly file: string;
}

export interface UpOptions {
  readonly fleet?: FleetFile;
  readonly data: string;
  readonly routerPort: number;
  readonly controlPort: number;
  readonly fresh: boolean;
  readonly onProgress: (news: StartNews) => void;
  /** Ends a start that is under way. */
  readonly signal: AbortSignal;
}

/** A fleet that runs. */
export interface RunningFleet {
  readonly ready: boolean;
  readonly router: string;
  readonly routerAdmin: string;
  readonly control: string;
  readonly token: string;
  readonly cells: readonly {
    readonly name: string;
    readonly url: string;
    readonly pid: number | null;
    readonly data: string;
  }[];
  readonly pids: { readonly host: number; readonly router: number | null; readonly control: number | null };
  /** Processes that are held down. */
  readonly held: readonly string[];
  /** What is damaged or did not start; the rest serves. */
  readonly problems: readonly (Problem & { readonly process?: string })[];
  /** Stops everything; resolves to the exit code: 1 if a person has to look at something. */
  stop(): Promise<number>;
}

/** Starts a fleet and resolves when everything is ready, or as ready as it can be. */
export type Up = (options: UpOptions) => Promise<RunningFleet>;

export interface UpArguments {
  readonly file: string | undefined;
  readonly data: string;
  readonly routerPort: number;
  readonly controlPort: number;
  readonly fresh: boolean;
  readonly output?: Format;
}

/**
 * `up`: reads the fleet file before anything starts, starts the fleet, shows progress on standard error and what is
 * there on standard output, and serves until it is told to stop. Ends with the code of `RunningFleet.stop`.
 */
export async function runUp(terminal: Terminal, loadUp: () => Promise<Up>, args: UpArguments): Promise<number> {
  const fleetFile = await fleetFileOf(terminal, args.file);
  const stopping = stopRequested(terminal);
  const up = await loadUp();
  const progress = new Progress(terminal.err, terminal.nowMs);
  let fleet: RunningFleet;
  try {
    fleet = await up({
      ...(fleetFile === undefined ? {} : { fleet: fleetFile }),
      data: args.data,
      routerPort: args.routerPort,
      controlPort: args.controlPort,
      fresh: args.fresh,
      onProgress: (news) => progress.take(news),
      signal: stopping.signal,
    });
  } catch (thrown) {
    const reason = asFault(thrown);
    if (stopping.signal.aborted && reason.code === 'draining') return exitCodes.done;
    return reportFailure(terminal.err, reason);
  } finally {
    progress.end();
  }
  announce(terminal, fleet, fleetFile?.items ?? [], args);
  await aborted(stopping.signal);
  terminal.err.write('stopping …\n');
  return fleet.stop();
}

async function fleetFileOf(terminal: Terminal, file: string | undefined): Promise<FleetFile | undefined> {
  if (file === undefined) return undefined;
  const { resources, sha256 } = await readOrRefuse(terminal, [file]);
  return { items: resources, sha256, file };
}

/** One line of JSON for programs, a panel for people. */
function announce(
  { out }: Terminal,
  fleet: RunningFleet,
  items: readonly Resource[],
  { output, data }: UpArguments,
): void {
  if (output !== 'json') {
    out.write(panel(fleet, items, printable(data), out.colors));
    return;
  }
  const { ready, router, routerAdmin, control, token, cells, pids, held, problems } = fleet;
  const line = {
    ready,
    router,
    routerAdmin,
    control,
    token,
    cells,
    pids,
    ...(held.length === 0 ? {} : { held }),
    ...(problems.length === 0 ? {} : { problems }),
  };
  out.write(`${JSON.stringify(line)}\n`);
}

/** Aborts at the first signal, or when the launcher is gone. A second signal ends the process at once. */
function stopRequested({ nowMs, err }: Terminal): AbortController {
  const requests = new StopRequests();
  const stopping = new AbortController();
  const take = (): void => {
    const meaning = requests.take(nowMs());
    if (meaning === 'stop') stopping.abort();
    if (meaning !== 'at-once') return;
    err.write('ended at once; what still runs notices and ends by itself\n');
    process.exit(exitCodes.failed);
  };
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, take);
  onParentGone(() => stopping.abort());
  return stopping;
}
