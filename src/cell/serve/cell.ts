import { setImmediate as immediately } from 'node:timers/promises';
import { Value } from 'typebox/value';
import { assert } from '../../kernel/assert.ts';
import type { Fault } from '../../kernel/fault.ts';
import type { CellBoot } from '../../protocol/boot.ts';
import type { CellDesired } from '../../protocol/desired.ts';
import { errorTable, fault } from '../../protocol/errors.ts';
import { asFault, problemOf } from '../../protocol/problem.ts';
import type { Condition } from '../../protocol/resources.ts';
import { RoutingFrameSchema, SignedSchema, type RoutingFrame, type Signed } from '../../protocol/routing.ts';
import type { CellStatus } from '../../protocol/status.ts';
import { openVerified, type Verified } from '../../machine/serve/replica/verified.ts';
import type { Following, pushStatus, StreamEvent } from '../../follow/follow.ts';
import type { Life, Stoppable } from '../../process/life.ts';
import { openVerifier, type Verifier } from '../../trust/signature.ts';
import { readTokenFile } from '../../trust/token.ts';
import type { Closed, GateView } from '../decide/gate.ts';
import { ownershipInstance } from '../decide/ownership.ts';
import { isAhead, isGap } from '../decide/position.ts';
import { KeptDesired } from './desired.ts';
import { openDoor, type Application, type Door } from './door.ts';
import { InFlight } from './in-flight.ts';
import { loadMachine } from '../../machine/serve/traps/load-machine.ts';
import { machineApplication } from './machine-application.ts';
import { machineStatus, statesCondition } from './machine-status.ts';
import { machineOf, replicaSource } from './machines.ts';
import { Ownership } from './ownership.ts';
import { ReleaseDesk } from './release-desk.ts';
import { workloadApplication } from './workload-application.ts';
import { startWorkload, type RunningWorkload } from './workload.ts';

/**
 * The cell of a boot file: listens at once and refuses until its log is proven and its application
 * loaded, serves from what it keeps on disk, and follows the control plane when that can be reached.
 * Resolves once it listens. Throws `port-in-use` and `file-unreadable`; all else it reports.
 */
export async function startCell(
  boot: CellBoot,
  life: Life,
  options: { readonly guardianFile: string },
): Promise<Stoppable> {
  const verifier = openVerifier(boot.publicKeyFile);
  const token = await readTokenFile(boot.tokenFile);
  const cell = new Cell(boot, life, verifier, options.guardianFile);
  await cell.open(token);
  return cell;
}

class Cell implements Stoppable {
  readonly #boot: CellBoot;
  readonly #life: Life;
  readonly #verifier: Verifier;
  readonly #guardianFile: string;
  readonly #desired: KeptDesired;
  #door: Door | undefined;
  #following: Following | undefined;
  #status: ReturnType<typeof pushStatus> | undefined;

  #closed: Closed | undefined = { code: 'cell-not-ready', why: 'It waits for its desired state.' };
  #problem: Fault | undefined;
  #opened: Verified | undefined;
  #desk: ReleaseDesk | undefined;
  #ownership: Ownership | undefined;
  readonly #inFlight = new InFlight();
  #application: Application | undefined;
  #workload: RunningWorkload | undefined;
  #workloadDown: string | undefined;
  /** Set once the desired state is known; resolves when the cell serves, or knows why it cannot. */
  #activation: Promise<void> | undefined;
  #applied = { generation: 0, version: 0 };
  #position: string | undefined;
  #stopping = false;

  constructor(boot: CellBoot, life: Life, verifier: Verifier, guardianFile: string) {
    this.#boot = boot;
    this.#life = life;
    this.#verifier = verifier;
    this.#guardianFile = guardianFile;
    this.#desired = new KeptDesired(boot.folder, verifier, { fleet: boot.fleet, cell: boot.name });
  }

  async open(token: string): Promise<void> {
    const { listen, controlUrl, name } = this.#boot;
    this.#door = await openDoor({
      listen,
      view: () => this.#view(),
      application: () => this.#application,
      takeFrames: (frames) => this.#takeCarried(frames),
    });
    this.#life.report({ type: 'listening', url: this.#door.url });
    const problem = await this.#desired.load();
    if (problem !== undefined) this.#life.log.error({ code: problem.code }, problem.message);
    this.#activate();
    // Loaded when the cell listens and its log is being replayed: neither waits for an HTTP client.
    const { follow, pushStatus } = await import('../../follow/follow.ts');
    this.#status = pushStatus({ controlUrl, token, read: () => this.#readStatus() });
    this.#following = follow({
      url: new URL(`/v1/agents/cells/${name}?watch=true`, controlUrl).href,
      token,
      position: () => this.#position,
      onEvent: (event) => this.#take(event),
      onProblem: (reason) => this.#life.log.debug({ err: reason }, 'the control plane cannot be followed'),
    });
  }

  async stop(): Promise<void> {
    this.#stopping = true;
    this.#closed = { code: 'draining', why: 'It is stopping.' };
    this.#following?.stop();
    this.#status?.stop();
    await Promise.all([this.#door?.close(), this.#activation]);
    this.#application?.close();
    await this.#workload?.stop();
    this.#desk?.stop();
    await this.#opened?.close();
  }

  #view(): GateView {
    return {
      cell: this.#boot.name,
      closed: this.#closed,
      workloadDown: this.#workloadDown,
      standing: (tenant) => this.#ownership?.standings.get(tenant),
    };
  }

  /** Starts what the desired state says, once; a restart is the only way to another. */
  #activate(): void {
    const desired = this.#desired.running;
    if (desired === undefined || this.#activation !== undefined) return;
    this.#closed = { code: 'cell-not-ready', why: 'Its log is being replayed.' };
    this.#activation = this.#start(desired).catch((thrown: unknown) => this.#notStarted(asFault(thrown)));
  }

  async #start(desired: CellDesired): Promise<void> {
    const { spec } = desired.blueprint;
    const { folder, name } = this.#boot;
    // Before the log: records of a machine that cannot be loaded could not be proven.
    const source = 'machine' in spec ? spec.machine : undefined;
    const machine = source === undefined ? undefined : await loadMachine(source);
    const verified = await openVerified({
      folder,
      owner: `${this.#boot.fleet}/${name}`,
      mustExist: this.#boot.logExpected,
      machineFor: (instance) => machineOf(instance, machine),
      nowMs: () => Date.now(),
      onStopped: (reason) => this.#life.fail(reason, 'backoff'),
      onNotice: (message, instance) => this.#life.log.warn({ instance }, message),
      replica: source?.verify === true ? replicaSource(source) : undefined,
      onQuarantine: () => this.#quarantineChanged(),
      onProblem: (message, cause) => this.#life.log.error({ err: cause }, message),
    });
    this.#opened = verified;
    const { runtime, quarantine } = verified;
    this.#desk = new ReleaseDesk(quarantine, (instance) => verified.prove(instance), this.#life.log);
    this.#ownership = await Ownership.open(runtime, name, (tenant) => this.#inFlight.end(tenant));
    this.#life.log.info({ ...runtime.recovered, tenants: this.#ownership.standings.owned }, 'the log is proven');
    if (this.#stopping) return;
    if ('workload' in spec) {
      this.#workloadDown = 'It is starting.';
      this.#application = workloadApplication({
        port: this.#boot.workloadPort,
        log: this.#life.log,
        inFlight: this.#inFlight,
      });
      this.#closed = undefined;
      this.#workload = await startWorkload({
        workload: spec.workload,
        cell: name,
        folder,
        port: this.#boot.workloadPort,
        guardianFile: this.#guardianFile,
        onChange: (change) => this.#workloadChanged(change),
      });
      return;
    }
    assert(machine !== undefined, 'a blueprint has either a machine or a workload');
    this.#application = machineApplication(machine, runtime);
    this.#closed = undefined;
    this.#settleServing();
  }

  /** Without its ownership a cell knows nobody's owner, so it serves nobody. */
  #quarantineChanged(): void {
    const refusal = this.#opened?.quarantine.refusal(ownershipInstance);
    if (refusal !== undefined && this.#problem === undefined) this.#settleRefusing(refusal);
    this.#status?.changed();
  }

  #settleServing(): void {
    this.#problem = undefined;
    this.#life.log.info('serving');
    this.#life.report({ type: 'settled', state: 'serving' });
    this.#status?.changed();
  }

  /** A full disk or a failed write: the host starts this cell again, later each time, and shows why meanwhile. */
  #notStarted(problem: Fault): void {
    if (problem.kind.reaction !== 'retry') {
      this.#settleRefusing(problem);
      return;
    }
    this.#closed = { code: 'cell-not-ready', why: problem.message };
    this.#life.fail(problem, 'backoff');
  }

  #settleRefusing(problem: Fault): void {
    if (this.#stopping) return;
    this.#closed = { code: problem.code === 'log-damaged' ? 'cell-damaged' : 'cell-refusing', why: problem.message };
    this.#report(problem);
  }

  #report(problem: Fault): void {
    this.#problem = problem;
    this.#life.log.error({ code: problem.code, err: problem.cause }, problem.message);
    this.#life.report({ type: 'settled', state: 'refusing', problem: problemOf(problem) });
    this.#status?.changed();
  }

  #workloadChanged(change: { readonly down: string | undefined; readonly hopeless: boolean }): void {
    const wasDown = this.#workloadDown !== undefined;
    this.#workloadDown = change.down;
    if (change.down === undefined) {
      if (wasDown) this.#settleServing();
    } else if (change.hopeless && this.#problem === undefined) {
      this.#report(
        fault('workload-down', `${errorTable['workload-down'].title}. ${change.down}`, { retryAfterMs: 1_000 }),
      );
    } else {
      this.#life.log.warn(change.down);
      this.#status?.changed();
    }
  }

  async #take(event: StreamEvent): Promise<void> {
    if (event.type !== 'desired' && event.type !== 'frame') return;
    const signed: unknown = JSON.parse(event.data);
    assert(Value.Check(SignedSchema, signed), 'the control plane sends signed documents');
    if (event.type === 'desired') {
      await this.#desired.take(signed);
      this.#activate();
      this.#status?.changed();
      return;
    }
    await this.#activation;
    const frame = this.#verified(signed);
    if (this.#position !== undefined && isGap(this.#applied, frame)) {
      this.#following?.resync();
      return;
    }
    if ((await this.#takeFrame(frame)) && isAhead(frame, this.#applied)) {
      this.#applied = { generation: frame.generation, version: frame.version };
      this.#position = event.id;
      this.#status?.changed();
    }
  }

  async #takeCarried(frames: readonly Signed[]): Promise<void> {
    if (this.#ownership === undefined) {
      const why = this.#closed?.why ?? 'It is starting.';
      throw fault('cell-not-ready', `${errorTable['cell-not-ready'].title}. ${why}`, { retryAfterMs: 500 });
    }
    // All are checked before the first is taken: a message is taken whole or not at all.
    const verified: RoutingFrame[] = [];
    for (const signed of frames) {
      verified.push(this.#verified(signed));
      // Checking may cost milliseconds; the tenants' requests come in between.
      await immediately();
    }
    for (const frame of verified) await this.#takeFrame(frame);
  }

  #verified(signed: unknown): RoutingFrame {
    const frame = this.#verifier.verify(signed, RoutingFrameSchema);
    if (frame.fleet === this.#boot.fleet) return frame;
    throw fault('frame-refused', `A frame of fleet ${frame.fleet} came to a cell of fleet ${this.#boot.fleet}.`);
  }

  /** Whether it was taken: a cell that refuses touches nothing. */
  async #takeFrame(frame: RoutingFrame): Promise<boolean> {
    if (this.#ownership === undefined) return false;
    await this.#ownership.take(frame.scope?.cell, frame.tenants);
    return true;
  }

  #readStatus(): CellStatus {
    const refusing = this.#problem !== undefined;
    const serving = this.#closed === undefined && this.#workloadDown === undefined;
    return {
      kind: 'cell',
      name: this.#boot.name,
      pid: process.pid,
      applied: this.#applied,
      state: refusing ? 'refusing' : serving ? 'serving' : 'starting',
      blueprintVersion: this.#desired.running?.blueprint.version ?? 0,
      tenants: this.#ownership?.standings.owned ?? 0,
      conditions: [
        this.#desired.condition(),
        this.#logCondition(),
        ...this.#machineConditions(),
        ...this.#workloadConditions(),
      ],
      ...(this.#problem === undefined ? {} : { problem: problemOf(this.#problem) }),
      ...(this.#machine === undefined ? {} : { machine: machineStatus(this.#machine) }),
    };
  }

  #machineConditions(): readonly Condition[] {
    return this.#machine === undefined ? [] : [statesCondition(this.#machine)];
  }

  /** What is told of tenants' states; of a workload nothing is known. */
  get #machine(): Verified | undefined {
    const { spec } = this.#desired.running?.blueprint ?? {};
    return spec !== undefined && 'machine' in spec ? this.#opened : undefined;
  }

  #logCondition(): Condition {
    const type = 'LogProven';
    if (this.#problem?.code === 'log-damaged') {
      return { type, status: 'False', reason: 'Damaged', message: this.#problem.message };
    }
    if (this.#ownership === undefined) {
      return { type, status: 'Unknown', reason: 'NotOpen', message: 'The log has not been opened yet.' };
    }
    return { type, status: 'True', reason: 'Replayed', message: 'Every record was replayed and its hash agreed.' };
  }

  #workloadConditions(): readonly Condition[] {
    if (this.#workload === undefined) return [];
    const type = 'WorkloadHealthy';
    if (this.#workloadDown === undefined) {
      return [{ type, status: 'True', reason: 'Healthy', message: 'The application answers.' }];
    }
    return [{ type, status: 'False', reason: 'Down', message: this.#workloadDown }];
  }
}
