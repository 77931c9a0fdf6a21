// The package's own name and version; a spec compares them with package.json.

export const PACKAGE_NAME = 'nbd-sdk';
export const VERSION = '0.1.0';
