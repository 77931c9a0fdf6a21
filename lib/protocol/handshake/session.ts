// The state of one handshake: what the user asked for, and what has been negotiated so far.

import type { ExportInfo, Negotiated, ProtocolName } from '../export-info.js';

/** What the user asks for; setters can change it until the export is open. */
export interface HandshakeRequest {
  exportName: string;
  /** Messages and errors must not contain the name. */
  maskExportName: boolean;
  /** TLS_DISABLE, TLS_ALLOW or TLS_REQUIRE. */
  tls: number;
  /** HANDSHAKE_FLAG_* bits that may be accepted. */
  handshakeFlags: number;
  /** Open the export with EXPORT_NAME, without trying GO. */
  exportNameOnly?: boolean;
  structuredReplies: boolean;
  extendedHeaders: boolean;
  blockSize: boolean;
  metaContext: boolean;
  metaContexts: readonly string[];
  fullInfo: boolean;
  optMode: boolean;
}

export class HandshakeSession {
  readonly request: HandshakeRequest;
  protocol: ProtocolName | null = null;
  readonly negotiated: Negotiated = { structuredReplies: false, extendedHeaders: false, tls: false, contexts: null };
  info: ExportInfo | null = null;
  /** NO_ZEROES was offered and accepted. */
  noZeroes = false;
  /** Number of options sent: each is a chunk of libnbd's stats_chunks_sent. */
  optionsSent = 0;
  /** The last option sent: if the server hangs up, it did not accept this one. */
  lastOption: number | null = null;

  constructor(request: HandshakeRequest) {
    this.request = request;
  }

  get isFixedNewstyle(): boolean {
    return this.protocol === 'newstyle-fixed';
  }

  /** The export name as messages may contain it. */
  get shownName(): string {
    const { exportName, maskExportName } = this.request;
    return maskExportName && exportName !== '' ? '***' : exportName;
  }

  /** Discards what was negotiated for an export. */
  forgetExport(): void {
    this.info = null;
    this.negotiated.contexts = null;
  }

  /** TLS starts over: discards everything that was negotiated in plaintext. */
  forgetAll(): void {
    this.forgetExport();
    this.negotiated.structuredReplies = false;
    this.negotiated.extendedHeaders = false;
  }
}
