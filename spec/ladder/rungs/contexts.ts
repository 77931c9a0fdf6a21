// Metadata contexts, listed and chosen.

import { expect } from '@jest/globals';

import { CONTEXT_BASE_ALLOCATION as BASE, NAMESPACE_BASE, type NbdConnection } from '../../../lib/index.js';
import { caught } from '../../support/caught.js';
import { completed, failure, type Group, no, OK, refused, type Verdict } from '../rung.js';

const UNKNOWN = 'x-ladder:unknown';

/** Without structured replies the client requests no contexts, as the protocol demands. */
const simple = (c: NbdConnection): boolean => !c.getStructuredRepliesNegotiated();

/** The client's own refusal, where the server has no structured replies. */
async function unasked(call: Promise<unknown>): Promise<Verdict> {
  const { code, name } = await failure(call);
  return no(`structured replies: refused; so ${code} (${name})`);
}

/** Listing needs no structured replies: what the server itself answers then. */
async function listed(call: Promise<readonly string[]>): Promise<Verdict> {
  try {
    expect((await call).every((name) => name === BASE)).toBe(true);
  } catch (error) {
    return refused(error);
  }
  return OK;
}

export const CONTEXTS: Group = {
  name: 'meta contexts',
  rungs: {
    'optListMetaContext: all there are': async ({ negotiate }) => {
      const c = await negotiate();
      if (simple(c)) return listed(c.optListMetaContext());
      const called: string[] = [];
      const list = await c.optListMetaContext((name) => called.push(name));
      expect(list).toEqual(called);
      expect(list).toContain(BASE);
      return OK;
    },
    'optListMetaContext: those that were added': async ({ negotiate }) => {
      const c = await negotiate({ metaContexts: [BASE, UNKNOWN] });
      if (simple(c)) return listed(c.optListMetaContext());
      expect(await c.optListMetaContext()).toEqual([BASE]);
      return OK;
    },
    'optListMetaContextQueries: a namespace': async ({ negotiate }) => {
      const c = await negotiate();
      if (simple(c)) return listed(c.optListMetaContextQueries([NAMESPACE_BASE]));
      expect(await c.optListMetaContextQueries([NAMESPACE_BASE])).toEqual([BASE]);
      expect(await c.optListMetaContextQueries([UNKNOWN])).toEqual([]);
      return OK;
    },
    'aioOptListMetaContext and its queries': async ({ negotiate }) => {
      const c = await negotiate({ metaContexts: [BASE] });
      const names: string[] = [];
      const found = (name: string): void => void names.push(name);
      const error = await completed((done) => c.aioOptListMetaContext(found, done));
      if (simple(c)) return listed(error === null ? Promise.resolve(names) : Promise.reject(error));
      expect(error).toBeNull();
      expect(await completed((done) => c.aioOptListMetaContextQueries([NAMESPACE_BASE], found, done))).toBeNull();
      expect(names).toEqual([BASE, BASE]);
      return OK;
    },
    optSetMetaContext: async ({ negotiate }) => {
      const c = await negotiate({ metaContexts: [BASE] });
      if (simple(c)) return unasked(c.optSetMetaContext());
      expect(await c.optSetMetaContext()).toEqual([BASE]);
      c.setRequestMetaContext(false);
      await c.optGo();
      expect(c.canMetaContext(BASE)).toBe(true);
      return OK;
    },
    optSetMetaContextQueries: async ({ negotiate }) => {
      const c = await negotiate();
      if (simple(c)) return unasked(c.optSetMetaContextQueries([BASE]));
      expect(await c.optSetMetaContextQueries([UNKNOWN, BASE])).toEqual([BASE]);
      c.setRequestMetaContext(false);
      await c.optGo();
      expect((await c.blockStatus(4096, 0)).has(BASE)).toBe(true);
      return OK;
    },
    'aioOptSetMetaContext and its queries': async ({ negotiate }) => {
      const c = await negotiate({ metaContexts: [BASE] });
      const names: string[] = [];
      const found = (name: string): void => void names.push(name);
      const error = await completed((done) => c.aioOptSetMetaContext(found, done));
      if (simple(c)) {
        expect(error).not.toBeNull();
        return no('structured replies: refused');
      }
      expect(await completed((done) => c.aioOptSetMetaContextQueries([BASE], found, done))).toBeNull();
      expect(names).toEqual([BASE, BASE]);
      return OK;
    },
    'canMetaContext: added, then connected': async ({ connect }) => {
      const c = await connect({ metaContexts: [BASE] });
      expect(c.canMetaContext(BASE)).toBe(!simple(c));
      return simple(c) ? no('structured replies: refused') : OK;
    },
    'canMetaContext: no context requested': async ({ connect }) => {
      expect((await connect()).canMetaContext(BASE)).toBe(false);
      return OK;
    },
    'canMetaContext: an unknown one': async ({ connect }) => {
      const c = await connect({ metaContexts: [UNKNOWN, BASE] });
      if (simple(c)) return no('structured replies: refused');
      expect([c.canMetaContext(UNKNOWN), c.canMetaContext(BASE)]).toEqual([false, true]);
      return OK;
    },
    'contexts added, cleared and counted': async ({ create, server }) => {
      const c = create();
      c.addMetaContext(UNKNOWN);
      c.addMetaContext(BASE);
      expect([c.getNrMetaContexts(), c.getMetaContext(1)]).toEqual([2, BASE]);
      c.clearMetaContexts();
      expect(c.getNrMetaContexts()).toBe(0);
      await c.connectUnix(server.path);
      expect(c.canMetaContext(BASE)).toBe(false);
      return OK;
    },
    'requestMetaContext false: added, not requested': async ({ connect }) => {
      const c = await connect({ metaContexts: [BASE], requestMetaContext: false });
      expect(caught(() => c.canMetaContext(BASE))).toMatchObject({ code: 'EINVAL' });
      expect(await failure(c.blockStatus(512, 0))).toMatchObject({ code: 'ENOTSUP' });
      return OK;
    },
    'several contexts, each reported': async ({ negotiate }) => {
      const c = await negotiate();
      if (simple(c)) return no('structured replies: refused');
      const names = await c.optListMetaContext();
      if (names.length < 2) return no(`it lists ${names.join(' ')} only`);
      for (const name of names) c.addMetaContext(name);
      await c.optGo();
      const status = await c.blockStatus(65536, 0);
      expect([...status.keys()].sort()).toEqual([...names].sort());
      for (const extents of status.values()) expect(extents.length).toBeGreaterThan(0);
      return OK;
    },
    'refused contexts leave option mode as it was': async ({ negotiate }) => {
      const c = await negotiate();
      if (!simple(c)) expect(await c.optSetMetaContextQueries([UNKNOWN]).catch(refused)).toEqual([]);
      await c.optGo();
      expect(c.aioIsReady()).toBe(true);
      return OK;
    },
  },
};
