import { stringify } from 'yaml';
import { printable, type Colors, type Output } from './terminal.ts';

export type Format = 'table' | 'wide' | 'json' | 'yaml' | 'name';
export const formats = ['json', 'yaml', 'wide', 'name'] as const;

/** One column: what it is called and what it shows of a row. */
export interface Column<Row> {
  readonly title: string;
  readonly text: (row: Row) => string;
  readonly paint?: (text: string, colors: Colors, row: Row) => string;
  /** Shown with `-o wide` only. */
  readonly wide?: true;
  /** Numbers read better with their last digits in line. */
  readonly right?: true;
}

/** Widths that fit the header and every row, in columns of the terminal. */
export function widthsOf<Row>(columns: readonly Column<Row>[], rows: readonly Row[]): readonly number[] {
  return columns.map((column) => Math.max(column.title.length, ...rows.map((row) => cellText(column, row).length)));
}

export function headerLine<Row>(columns: readonly Column<Row>[], widths: readonly number[], colors: Colors): string {
  const cells = columns.map(({ title, right }, index) => colors.bold(pad(title, widths[index] ?? 0, right)));
  return trimEnd(columns, cells, widths);
}

export function rowLine<Row>(
  columns: readonly Column<Row>[],
  widths: readonly number[],
  row: Row,
  colors: Colors,
): string {
  const cells = columns.map((column, index) => {
    const text = cellText(column, row);
    const padding = ' '.repeat(Math.max(0, (widths[index] ?? 0) - text.length));
    const painted = column.paint === undefined ? text : column.paint(text, colors, row);
    if (column.right === true) return padding + painted;
    return index === columns.length - 1 ? painted : painted + padding;
  });
  return `${cells.join('   ')}\n`;
}

/** Header and rows, aligned; every line ends without blanks. */
export function table<Row>(columns: readonly Column<Row>[], rows: readonly Row[], colors: Colors): string {
  const widths = widthsOf(columns, rows);
  return headerLine(columns, widths, colors) + rows.map((row) => rowLine(columns, widths, row, colors)).join('');
}

function cellText<Row>(column: Column<Row>, row: Row): string {
  const text = printable(column.text(row)).replaceAll(/\s+/g, ' ');
  return text === '' ? '-' : text;
}

function pad(text: string, width: number, right: true | undefined): string {
  return right === true ? text.padStart(width) : text.padEnd(width);
}

function trimEnd<Row>(columns: readonly Column<Row>[], cells: readonly string[], widths: readonly number[]): string {
  const last = columns.length - 1;
  const column = columns[last];
  const excess = column === undefined || column.right === true ? 0 : (widths[last] ?? 0) - column.title.length;
  return `${cells.map((cell, index) => (index === last && excess > 0 ? cell.replace(' '.repeat(excess), '') : cell)).join('   ')}\n`;
}

/** JSON as people read it; for programs the same. */
export function writeJson(out: Output, value: unknown): void {
  out.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

export function writeYaml(out: Output, value: unknown): void {
  out.write(stringify(value, { lineWidth: 0, aliasDuplicateObjects: false }));
}

/** How long ago, in the two largest units at most: `8s`, `5m`, `3h12m`, `4d`. */
export function age(fromMs: number, nowMs: number): string {
  const seconds = Math.max(0, Math.floor((nowMs - fromMs) / 1000));
  if (seconds < 120) return `${seconds}s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes}m`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return minutes % 60 === 0 ? `${hours}h` : `${hours}h${minutes % 60}m`;
  const days = Math.floor(hours / 24);
  return days < 7 && hours % 24 !== 0 ? `${days}d${hours % 24}h` : `${days}d`;
}

/** A state in the colour of what it means for the reader: fine, on its way, needs a look. */
export function paintState(text: string, colors: Colors): string {
  const state = text.toLowerCase();
  if (good.has(state)) return colors.green(text);
  if (bad.has(state)) return colors.red(text);
  if (coming.has(state)) return colors.yellow(text);
  return colors.dim(text);
}

const good = new Set(['serving', 'running', 'ready', 'placed', 'true', 'created']);
const bad = new Set(['refusing', 'failed', 'down', 'damaged', 'false', 'unplaced', 'deleted', 'unreachable']);
const coming = new Set(['starting', 'waiting', 'backing-off', 'pending', 'held', 'changed', 'stopping']);
