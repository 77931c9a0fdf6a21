import { describe, expect, it } from '@jest/globals';

import { NbdConnection, type NbdTarget } from '../../lib/index.js';
import { rejection } from '../support/caught.js';
import * as g from '../support/golden.js';
import { openFiles } from '../support/leftovers.js';
import { listenRaw, type RawPeer } from '../support/raw-server.js';
import { settled, until } from '../support/waiting.js';

/** Serves every connection by `play`, whose failures are the client's going away. */
async function server(play: (peer: RawPeer) => Promise<void>): Promise<NbdTarget> {
  const listening = await listenRaw();
  void (async () => {
    for (;;) {
      const peer = await listening.accept();
      void play(peer)
        .catch(() => undefined)
        .finally(() => peer.stream.destroy());
    }
  })();
  return listening.target;
}

describe('many connections, one after the other', () => {
  it('leave no open files, however they end', async () => {
    const target = await server(async (peer) => {
      await peer.handshake();
      await peer.serve();
    });
    const once = async (i: number): Promise<void> => {
      const connection = await NbdConnection.connect(target);
      await connection.pread(512, 0);
      if (i % 2 === 0) connection.close();
      else await connection.shutdown();
    };
    await once(0);
    await settled();
    const before = openFiles();
    for (let i = 0; i < 200; i++) await once(i);
    await until(() => openFiles() <= before + 2, 'the files are closed');
  });

  it.each<[string, (peer: RawPeer) => Promise<void>, string]>([
    ['no greeting', (peer) => peer.ended, 'ETIMEDOUT'],
    [
      'a greeting and no more',
      async (peer) => {
        peer.write(g.greeting());
        await peer.ended;
      },
      'ETIMEDOUT',
    ],
    [
      'another protocol',
      async (peer) => {
        peer.write('HTTP/1.1 400 Bad Request');
        await peer.ended;
      },
      'EPROTO',
    ],
    [
      'a refusal',
      async (peer) => {
        peer.write(g.greeting());
        await peer.take(4);
        for (;;) {
          const { number } = await peer.option();
          peer.write(g.reply(number, number === g.OPT.GO ? g.ERR_UNKNOWN : g.ERR_UNSUP));
        }
      },
      'ENOENT',
    ],
    ['an end at once', async () => undefined, 'ENOTCONN'],
  ])('leave no open files where the server answers with %s', async (_title, play, code) => {
    const target = await server(play);
    const attempt = (): Promise<unknown> =>
      rejection(NbdConnection.connect(target, { connectTimeout: code === 'ETIMEDOUT' ? 25 : 0 }));
    await attempt();
    await settled();
    const before = openFiles();
    const errors = await Promise.all(Array.from({ length: 40 }, attempt));
    await until(() => openFiles() <= before + 2, 'the files are closed');
    expect(new Set(errors.map((error) => (error as { code: string }).code))).toEqual(new Set([code]));
  });
});
