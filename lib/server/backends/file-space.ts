// Finds and creates holes in a file. Node has neither lseek(SEEK_HOLE) nor fallocate(): perl or python3, one of which
// is installed on most Linux machines, makes these calls on our descriptor, in a process that lives as long as the file
// is open. Invariant: nothing is cached here, so that every reply is the kernel's current one, whatever others write.

import { type ChildProcess, spawn } from 'node:child_process';
import type { Socket } from 'node:net';
import { createInterface } from 'node:readline';

/** The runs of data in a range, in order, up to `end`; between them are holes. */
export interface DataMap {
  readonly end: number;
  readonly runs: readonly (readonly [start: number, end: number])[];
}

/** Maximum number of runs in one reply. */
const MAX_RUNS = 4096;

/** System call number of fallocate. Other architectures pass a 64-bit argument in two registers, or are untested. */
const FALLOCATE: Readonly<Record<string, number>> = {
  x64: 285,
  arm64: 47,
  riscv64: 47,
  loong64: 47,
  s390x: 314,
  ppc64: 309,
};
const KEEP_SIZE = 1;
const PUNCH_HOLE = 2;
const ZERO_RANGE = 16;

/**
 * Requests and replies are lines. The reply to `map START END MAX` is `ok UPTO START END …`, that to `MODE START
 * LENGTH`, an fallocate(), is `ok`; either may be `no ERRNO`. ENXIO (6) means that there is no more data. On Linux
 * SEEK_DATA is 3 and SEEK_HOLE 4. Signals from the terminal are ignored: the helper exits at the end of its input.
 */
const PERL = `$|=1; $SIG{$_}='IGNORE' for qw(INT TERM HUP);
open(my $f,'<&=',3) or exit 1;
while (my $line=<STDIN>) {
  my ($what,$at,$end,$max)=split ' ',$line;
  if ($what eq 'map') {
    my (@runs,$error);
    while ($at<$end and @runs<2*$max) {
      my $data=sysseek($f,$at,3);
      if (!defined $data) { $error=$!+0; $error=0 if $error==6; $at=$end; last; }
      if (int($data)>=$end) { $at=$end; last; }
      my $hole=sysseek($f,int($data),4);
      if (!defined $hole) { $error=$!+0; last; }
      push @runs,int($data),int($hole); $at=int($hole);
    }
    print $error ? "no $error\\n" : "ok $at @runs\\n";
  } else {
    print syscall($ARGV[0],3,$what+0,$at+0,$end+0)==0 ? "ok\\n" : 'no '.($!+0)."\\n";
  }
}`;
const PYTHON = `import ctypes,os,signal,sys
for s in (signal.SIGINT,signal.SIGTERM,signal.SIGHUP): signal.signal(s,signal.SIG_IGN)
syscall=ctypes.CDLL(None,use_errno=True).syscall
number=int(sys.argv[1])
for line in iter(sys.stdin.readline,''):
  words=line.split()
  try:
    if words[0]=='map':
      at,end,most=map(int,words[1:]); runs=[]
      while at<end and len(runs)<2*most:
        try: data=os.lseek(3,at,os.SEEK_DATA)
        except OSError as e:
          if e.errno!=6: raise
          at=end; break
        if data>=end: at=end; break
        at=os.lseek(3,data,os.SEEK_HOLE); runs+=[data,at]
      print('ok',at,*runs,flush=True)
    else:
      if syscall(ctypes.c_long(number),ctypes.c_long(3),*[ctypes.c_long(int(w)) for w in words])!=0:
        raise OSError(ctypes.get_errno(),'')
      print('ok',flush=True)
  except OSError as e: print('no',e.errno,flush=True)`;

const HELPERS = [
  ['perl', '-e', PERL],
  ['python3', '-c', PYTHON],
] as const;

const EOPNOTSUPP = '95';
const ENOSYS = '38';

/** The holes of one open file. Calls may overlap; without a helper they return null or false. */
export class FileSpace {
  readonly #fd: number;
  #next = 0;
  #helper: Helper | null = null;
  readonly #unsupported = new Set<number>();
  #isClosed = false;

  constructor(fd: number) {
    this.#fd = fd;
  }

  /** The runs of data in the range at this moment; null if the system cannot report them. */
  async data(start: number, end: number): Promise<DataMap | null> {
    const answer = await this.#ask(`map ${start} ${end} ${MAX_RUNS}`);
    if (answer?.[0] !== 'ok') return null;
    const [upTo = NaN, ...edges] = answer.slice(1).map(Number);
    const runs: [number, number][] = [];
    let at = start;
    for (let i = 0; i < edges.length; i += 2) {
      const [from = NaN, to = NaN] = [edges[i], edges[i + 1]];
      if (!(from >= at && to > from)) return null;
      runs.push([from, Math.min(to, end)]);
      at = to;
    }
    return upTo >= at && upTo > start ? { end: Math.min(upTo, end), runs } : null;
  }

  /** Zeroes the range without writing: as a hole, or allocated. False if that is not supported. */
  async zero(start: number, length: number, allocated: boolean): Promise<boolean> {
    const mode = KEEP_SIZE | (allocated ? ZERO_RANGE : PUNCH_HOLE);
    if (FALLOCATE[process.arch] === undefined || this.#unsupported.has(mode)) return false;
    const answer = await this.#ask(`${mode} ${start} ${length}`);
    if (answer === null) return false;
    const [outcome, error = ''] = answer;
    if (error === EOPNOTSUPP || error === ENOSYS) this.#unsupported.add(mode);
    return outcome === 'ok';
  }

  /** Ends the helper. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#helper?.end();
  }

  /**
   * The words of the reply. If a helper is missing or has exited, the next one is asked: repeating a request is
   * harmless.
   */
  async #ask(line: string): Promise<string[] | null> {
    for (;;) {
      if (this.#isClosed || process.platform !== 'linux') return null;
      if (this.#helper === null) {
        const command = HELPERS[this.#next];
        if (command === undefined) return null;
        this.#next += 1;
        this.#helper = new Helper(command, this.#fd);
      }
      const helper = this.#helper;
      const answer = await helper.ask(line);
      if (answer !== null) return answer.split(' ').filter((word) => word !== '');
      if (this.#helper === helper) this.#helper = null;
    }
  }
}

/** A running helper. It keeps this process alive only while a reply is pending. */
class Helper {
  readonly #child: ChildProcess;
  readonly #input: Socket;
  readonly #output: Socket;
  readonly #asked: ((answer: string | null) => void)[] = [];
  readonly #ended: Promise<void>;
  #isGone = false;

  constructor([program, flag, script]: readonly [string, string, string], fd: number) {
    this.#child = spawn(program, [flag, script, String(FALLOCATE[process.arch] ?? 0)], {
      stdio: ['pipe', 'pipe', 'ignore', fd],
      env: process.env,
      windowsHide: true,
    });
    // Pipes to a child are sockets, although their types differ.
    this.#input = this.#child.stdin as unknown as Socket;
    this.#output = this.#child.stdout as unknown as Socket;
    this.#ended = new Promise((resolve) => {
      const gone = (): void => {
        this.#isGone = true;
        for (const answer of this.#asked.splice(0)) answer(null);
        resolve();
      };
      this.#child.once('error', gone);
      this.#child.once('close', gone);
    });
    this.#input.on('error', () => undefined);
    this.#output.on('error', () => undefined);
    createInterface({ input: this.#output }).on('line', (line) => {
      this.#asked.shift()?.(line);
      if (this.#asked.length === 0) this.#unref();
    });
    this.#child.unref();
    this.#unref();
  }

  /** The reply to a line; null if the helper has exited. */
  ask(line: string): Promise<string | null> {
    if (this.#isGone) return Promise.resolve(null);
    return new Promise((resolve) => {
      this.#asked.push(resolve);
      this.#child.ref();
      this.#output.ref();
      this.#input.write(`${line}\n`);
    });
  }

  end(): Promise<void> {
    this.#child.ref();
    this.#output.ref();
    this.#input.end();
    return this.#ended;
  }

  #unref(): void {
    this.#child.unref();
    this.#input.unref();
    this.#output.unref();
  }
}
