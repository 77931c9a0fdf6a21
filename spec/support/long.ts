// Specs that are a short run in `npm test` and a long one in `npm run test:long`, which finds them by their import of
// this file.

export const IS_LONG = process.env['NBD_SDK_LONG'] === '1';
