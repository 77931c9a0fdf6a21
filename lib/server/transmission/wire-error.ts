// Converts whatever a backend throws to the errno and the text for the client.

import { wireError } from '../../protocol/names.js';
import { NBD_EIO } from '../../protocol/constants.js';

// "It also SHOULD map the EDQUOT and EFBIG errors to NBD_ENOSPC."
const ALIASES: Readonly<Record<string, string>> = {
  EDQUOT: 'ENOSPC',
  EFBIG: 'ENOSPC',
  EACCES: 'EPERM',
  EROFS: 'EPERM',
  EOPNOTSUPP: 'ENOTSUP',
  ENOSYS: 'ENOTSUP',
};

export function wireErrorOf(error: unknown): { readonly number: number; readonly message: string } {
  if (error instanceof Error && 'code' in error && typeof error.code === 'string') {
    return { number: wireError(ALIASES[error.code] ?? error.code), message: error.message };
  }
  // A bug in the backend; its message is not meant for clients.
  return { number: NBD_EIO, message: 'the backend failed' };
}
