// Writes, and the end of a connection.

import { CMD, close, D, F, NO_SR, OK, OK_CLOSE, recv, rst, SIMPLE, sleep, stall, type WireCase } from '../notation.js';
import { type Results } from './steps.js';

const WRITE = { user: 'pwrite 1048576 0, R' } as const;

export const WRITES: readonly WireCase[] = [
  {
    id: 'W01',
    what: 'reply right after the header, payload read 300 ms later',
    script: { ...NO_SR, afterWriteHeader: (r) => [SIMPLE(0, r.cookie), sleep(300)] },
    ...WRITE,
    expected: [OK],
    check: arrivedWhole,
  },
  {
    id: 'W02',
    what: 'ENOSPC right after the header',
    script: { ...NO_SR, afterWriteHeader: (r) => [SIMPLE(28, r.cookie), sleep(300)] },
    ...WRITE,
    expected: [F('ENOSPC')],
    check: arrivedWhole,
  },
  {
    id: 'W03',
    what: 'FIN in the middle of the payload',
    script: { ...NO_SR, afterWriteHeader: [recv(1000), close()] },
    ...WRITE,
    expected: [D],
  },
  {
    id: 'W04',
    what: 'RST in the middle of the payload',
    script: { ...NO_SR, afterWriteHeader: [recv(1000), rst()] },
    ...WRITE,
    transport: 'tcp',
    expected: [D],
  },
  {
    id: 'W05',
    what: 'good write of 1 MiB, read slowly',
    script: { ...NO_SR, reply: (r) => [sleep(100), SIMPLE(0, r.cookie)] },
    ...WRITE,
    expected: [OK],
    check: arrivedWhole,
  },
  {
    id: 'W06',
    what: 'DISC: never closes',
    script: { ...NO_SR, onDisconnect: stall() },
    user: 'pread 512 0, shutdown',
    expected: [OK_CLOSE],
  },
  {
    id: 'W07',
    what: 'DISC: a stray reply, then closes',
    script: { ...NO_SR, onDisconnect: [SIMPLE(0, 99), close()] },
    user: 'pread 512 0, shutdown',
    expected: [OK_CLOSE],
  },
  {
    id: 'W08',
    what: 'DISC: RST',
    script: { ...NO_SR, onDisconnect: rst() },
    user: 'pread 512 0, shutdown',
    transport: 'tcp',
    expected: [OK_CLOSE],
  },
  { id: 'W09', what: 'DISC with a good end', script: {}, user: 'pread 512 0, shutdown', expected: [OK_CLOSE] },
];

function arrivedWhole(_: Results, seen: Parameters<Exclude<WireCase['check'], undefined>>[1]): void {
  const write = seen.commands.find((command) => command.type === CMD.WRITE);
  const payload = write === undefined ? undefined : seen.payloadOf(write);
  if (payload?.length !== 2 ** 20) throw new Error(`a payload of ${payload?.length} bytes`);
  const wrong = payload.findIndex((byte, i) => byte !== ((i * 13 + 5) & 255));
  if (wrong !== -1) throw new Error(`the payload is wrong from byte ${wrong}`);
}
