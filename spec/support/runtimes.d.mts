/** `[name, program, arguments]` of each; `program` is undefined where it has not been fetched. */
export function otherRuntimes(): [name: string, program: string | undefined, args: string[]][];
