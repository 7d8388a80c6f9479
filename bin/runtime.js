'use strict';
// Finds a Node that runs Cellwright and, started as a program, runs its arguments with it:
//   node bin/runtime.js --test 'src/**/*.test.ts'
// Plain JavaScript for Node 18 and up, because it is what an older Node still has to understand.
const { spawn } = require('node:child_process');
const { existsSync } = require('node:fs');
const { join } = require('node:path');

const majorMin = 24;
const options = ['--disable-warning=ExperimentalWarning'];
/** In a clone, `import 'cellwright'` means the sources. */
if (existsSync(join(__dirname, '..', 'src'))) options.push('--conditions=cellwright-source');

/** Path of a Node of at least version 24: the running one, or the one that came as a package. */
function findRuntime() {
  if (Number(process.versions.node.split('.')[0]) >= majorMin) return process.execPath;
  const name = `node-${process.platform}-${process.arch}`;
  try {
    return require.resolve(`${name}/bin/node`);
  } catch {
    process.stderr.write(
      `cellwright needs Node ${majorMin} or newer; this is ${process.version}, and the package ${name} is not installed.\n` +
        `Install it (npm install --no-save ${name}), or run with a newer Node.\n`,
    );
    process.exit(1);
  }
}

/**
 * Runs a Node program as a child and becomes it as far as possible: same streams, signals passed
 * on, same exit. An IPC channel lets the child notice that this parent was killed.
 */
function become(runtime, args) {
  const child = spawn(runtime, [...options, ...args], { stdio: ['inherit', 'inherit', 'inherit', 'ipc'] });
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal));
  child.on('error', (error) => {
    process.stderr.write(`cellwright could not start ${runtime}: ${error.message}\n`);
    process.exit(1);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code);
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

module.exports = { findRuntime, become };
if (require.main === module) become(findRuntime(), process.argv.slice(2));
