// Tests a program against a server that fails, with node:test: `node --test` in a project of your own.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { NbdConnection, NbdError } from 'nbd-sdk';
import { type Fault, MemoryBackend, NbdServer } from 'nbd-sdk/server';

const record = Buffer.alloc(4096, 'record');
const checksum = (bytes: Uint8Array): Buffer => createHash('sha256').update(bytes).digest();

/** The program: reads a record and its checksum, and tries again where that may help. */
async function readRecord(connection: NbdConnection, attempts = 3): Promise<Buffer> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      const [bytes, sum] = await Promise.all([connection.pread(4096, 0), connection.pread(32, 4096)]);
      if (!checksum(bytes).equals(sum)) throw new NbdError('the record is damaged', { code: 'EIO' });
      return bytes;
    } catch (error) {
      if (attempt === attempts || connection.aioIsDead()) throw error;
    }
  }
}

/** A test with a server and a connection of its own, which are closed when it ends. */
function testWith(
  name: string,
  faults: Fault[],
  run: (connection: NbdConnection, server: NbdServer) => Promise<void>,
): void {
  void test(name, async () => {
    const disk = MemoryBackend.of(65_536, [
      { offset: 0, data: record },
      { offset: 4096, data: checksum(record) },
    ]);
    await using server = new NbdServer({ exports: { '': disk }, seed: 1 });
    server.faults.push(...faults);
    await using connection = await NbdConnection.connect(server.connectMemory());
    await run(connection, server);
  });
}

testWith('a read that fails is tried again', [{ command: 'pread', nth: 1, error: 'EIO' }], async (connection) => {
  assert.deepEqual(await readRecord(connection), record);
});

testWith('damage is noticed', [{ command: 'pread', corrupt: 1 }], async (connection) => {
  await assert.rejects(readRecord(connection), { code: 'EIO', message: 'the record is damaged' });
});

testWith('a lost connection is not tried again', [{ cut: 'reset' }], async (connection, server) => {
  await assert.rejects(readRecord(connection), { code: 'ENOTCONN' });
  assert.equal(server.statistics.requests.pread, 1);
});

testWith('replies may come in any order', [{ command: 'pread', hold: 'reply' }], async (connection, { faults }) => {
  const reading = readRecord(connection);
  for (const held of [...(await faults.untilHeld(2))].reverse()) held.release();
  assert.deepEqual(await reading, record);
});
