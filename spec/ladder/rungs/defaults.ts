// What a connection is without any settings, and what the settings change.

import { expect } from '@jest/globals';

import * as nbd from '../../../lib/index.js';
import { caught } from '../../support/caught.js';
import { DESCRIPTION, EXPORT, pattern, SIZE } from '../image.js';
import { expectBytes, failure, type Group, no, OK } from '../rung.js';

export const DEFAULTS: Group = {
  name: 'defaults',
  rungs: {
    'requests everything, strictly': async ({ create }) => {
      const c = create();
      expect(c.getStrictMode()).toBe(nbd.STRICT_MASK);
      expect(c.getHandshakeFlags()).toBe(nbd.HANDSHAKE_FLAG_MASK);
      expect([c.getRequestStructuredReplies(), c.getRequestExtendedHeaders()]).toEqual([true, true]);
      expect([c.getRequestBlockSize(), c.getRequestMetaContext()]).toEqual([true, true]);
      expect([c.getFullInfo(), c.getOptMode(), c.getPreadInitialize()]).toEqual([false, false, true]);
      return OK;
    },
    'no TLS, but verified where there is': async ({ create }) => {
      const c = create();
      expect([c.getTls(), c.getTlsVerifyPeer()]).toEqual([nbd.TLS_DISABLE, true]);
      expect([c.getTlsHostname(), c.getTlsPriority()]).toEqual(['', '']);
      return OK;
    },
    'a created connection has no facts': async ({ create }) => {
      const c = create();
      expect([c.connectionState(), c.aioIsCreated()]).toEqual(['created', true]);
      for (const ask of [() => c.getSize(), () => c.isReadOnly(), () => c.getProtocol(), () => c.aioInFlight()]) {
        expect(caught(ask)).toMatchObject({ code: 'ENOTCONN' });
      }
      return OK;
    },
    'a created connection takes no command': async ({ create }) => {
      const c = create();
      expect(await failure(c.pread(512, 0))).toMatchObject({ code: 'ENOTCONN' });
      expect(caught(() => c.aioCache(512, 0))).toMatchObject({ code: 'ENOTCONN' });
      expect(await failure(c.optGo())).toMatchObject({ code: 'ENOTCONN' });
      return OK;
    },
    'connected: ready, nothing in flight': async ({ connect }) => {
      const c = await connect();
      expect([c.connectionState(), c.aioIsReady(), c.aioIsProcessing()]).toEqual(['ready', true, false]);
      expect(c.aioInFlight()).toBe(0);
      return OK;
    },
    'the size of the export': async ({ connect }) => {
      expect((await connect()).getSize()).toBe(BigInt(SIZE));
      return OK;
    },
    'the fixed newstyle handshake': async ({ connect }) => {
      expect((await connect()).getProtocol()).toBe('newstyle-fixed');
      return OK;
    },
    'structured replies': async ({ negotiate }) => {
      const c = await negotiate({ requestStructuredReplies: false });
      const agreed = await c.optStructuredReply();
      expect(c.getStructuredRepliesNegotiated()).toBe(agreed);
      return agreed ? OK : no('structured replies: refused');
    },
    'structured replies unasked': async ({ connect }) => {
      const c = await connect();
      return c.getStructuredRepliesNegotiated() ? OK : no('structured replies: refused');
    },
    'extended headers unasked': async ({ connect }) => {
      const c = await connect();
      if (!c.getExtendedHeadersNegotiated()) return no('extended headers: refused');
      expect(c.getStructuredRepliesNegotiated()).toBe(true);
      return OK;
    },
    'no TLS unasked': async ({ connect }) => {
      expect((await connect()).getTlsNegotiated()).toBe(false);
      return OK;
    },
  },
};

export const SETTINGS: Group = {
  name: 'non-defaults',
  rungs: {
    'simple replies only': async ({ connect }) => {
      const c = await connect({ requestStructuredReplies: false });
      expect([c.getStructuredRepliesNegotiated(), c.getExtendedHeadersNegotiated()]).toEqual([false, false]);
      expectBytes(await c.pread(4096, 4000), pattern(4000, 4096));
      return OK;
    },
    'no extended headers': async ({ connect }) => {
      const c = await connect({ requestExtendedHeaders: false });
      expect(c.getExtendedHeadersNegotiated()).toBe(false);
      expectBytes(await c.pread(4096, 4000), pattern(4000, 4096));
      return OK;
    },
    'no block sizes': async ({ connect }) => {
      const c = await connect({ requestBlockSize: false });
      // A server may send it without a request.
      if (c.getBlockSize(nbd.SIZE_MAXIMUM) === 0) expect(c.getBlockSize(nbd.SIZE_PAYLOAD)).toBe(32 << 20);
      expectBytes(await c.pread(512, 512), pattern(512, 512));
      return OK;
    },
    'the plain newstyle handshake': async ({ connect }) => {
      const c = await connect({ handshakeFlags: 0 });
      expect([c.getProtocol(), c.getStructuredRepliesNegotiated()]).toEqual(['newstyle', false]);
      expect(c.getSize()).toBe(BigInt(SIZE));
      expectBytes(await c.pread(512, 512), pattern(512, 512));
      return OK;
    },
    'the plain handshake without the 124 zeroes': async ({ connect }) => {
      const c = await connect({ handshakeFlags: nbd.HANDSHAKE_FLAG_NO_ZEROES });
      expectBytes(await c.pread(512, 512), pattern(512, 512));
      return OK;
    },
    'the fixed handshake with zeroes': async ({ connect }) => {
      const c = await connect({ handshakeFlags: nbd.HANDSHAKE_FLAG_FIXED_NEWSTYLE });
      expect(c.getProtocol()).toBe('newstyle-fixed');
      expectBytes(await c.pread(512, 512), pattern(512, 512));
      return OK;
    },
    'the canonical name': async ({ connect }) => {
      const c = await connect({ fullInfo: true });
      try {
        expect(c.getCanonicalExportName()).toBe(EXPORT);
        return OK;
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOTSUP' });
        return no('full info: no canonical name');
      }
    },
    'the description': async ({ connect }) => {
      const c = await connect({ fullInfo: true });
      try {
        expect(c.getExportDescription()).toBe(DESCRIPTION);
        return OK;
      } catch (error) {
        expect(error).toMatchObject({ code: 'ENOTSUP' });
        return no('full info: no description');
      }
    },
    'no full info: no canonical name': async ({ connect }) => {
      const c = await connect();
      // qemu-nbd sends the description unasked, but no server the name.
      expect(caught(() => c.getCanonicalExportName())).toMatchObject({ code: 'ENOTSUP' });
      expect(c.getExportName()).toBe(EXPORT);
      return OK;
    },
    'debug messages bear the handle name': async ({ create, server }) => {
      const said: string[] = [];
      const c = create({ handleName: 'climber', debug: true });
      c.setDebugCallback((...words) => said.push(words.join(' ')));
      await c.connectUnix(server.path);
      await c.pread(512, 0);
      expect(c.getHandleName()).toBe('climber');
      expect(said.length).toBeGreaterThan(0);
      return OK;
    },
    'strict mode may change while connected': async ({ connect }) => {
      const c = await connect();
      c.setStrictMode(nbd.STRICT_MASK & ~nbd.STRICT_ZERO_SIZE);
      expect(c.getStrictMode()).toBe(nbd.STRICT_MASK & ~nbd.STRICT_ZERO_SIZE);
      c.setStrictMode(nbd.STRICT_MASK);
      expect(await failure(c.pread(0, 0))).toMatchObject({ code: 'EINVAL' });
      return OK;
    },
    'settings are fixed once connected': async ({ connect }) => {
      const c = await connect();
      for (const set of [
        () => c.setTls(nbd.TLS_REQUIRE),
        () => c.setOptMode(true),
        () => c.setExportName('other'),
        () => c.addMetaContext(nbd.CONTEXT_BASE_ALLOCATION),
      ]) {
        expect(caught(set)).toMatchObject({ code: 'EINVAL' });
      }
      expect([c.getTls(), c.getExportName(), c.getNrMetaContexts()]).toEqual([nbd.TLS_DISABLE, EXPORT, 0]);
      return OK;
    },
    'a bad setting keeps the old one': async ({ create }) => {
      const c = create();
      expect(caught(() => c.setStrictMode(0x80))).toMatchObject({ code: 'EINVAL' });
      expect(caught(() => c.setExportName('x'.repeat(4097)))).toMatchObject({ code: 'ENAMETOOLONG' });
      expect([c.getStrictMode(), c.getExportName()]).toEqual([nbd.STRICT_MASK, EXPORT]);
      return OK;
    },
  },
};
