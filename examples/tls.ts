// Connects with TLS and a pre-shared key, which needs no files (for certificates, set `ca` or `tlsCertificates`).
import { NbdConnection, NbdError, TLS_ALLOW, TLS_REQUIRE } from 'nbd-sdk';
import { MemoryBackend, NbdServer } from 'nbd-sdk/server';

const key = Buffer.alloc(32, 'a secret of 32 bytes');
const exports = { '': new MemoryBackend(1024 * 1024) };
await using server = new NbdServer({ exports, tls: 'require', tlsOptions: { psk: { alice: key } } });
await server.listenTcp();
const { pathname, host } = new URL(server.uri());

async function attempt(what: string, ...args: Parameters<typeof NbdConnection.connect>): Promise<void> {
  try {
    await using connection = await NbdConnection.connect(...args);
    await connection.flush();
    console.log(`${what}: ${connection.getTlsNegotiated() ? 'encrypted' : 'in plaintext'}`);
  } catch (error) {
    if (!(error instanceof NbdError)) throw error;
    console.log(`${what}: ${error.name} ${error.code}`);
  }
}

const tlsPsk = { identity: 'alice', key };
await attempt('nbds URI', `nbds://${host}${pathname}`, { tlsPsk });
await attempt('plain nbd URI', `nbd://${host}${pathname}`);
await attempt('wrong key', server.uri(), { tlsPsk: { identity: 'alice', key: '00'.repeat(32) } });

// A server without TLS: TLS_REQUIRE fails, TLS_ALLOW connects in plaintext.
await using plain = new NbdServer({ exports });
await attempt('required', plain.connectMemory(), { tls: TLS_REQUIRE, tlsPsk });
await attempt('allowed', plain.connectMemory(), { tls: TLS_ALLOW, tlsPsk });
