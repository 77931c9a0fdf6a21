# libnbd's asynchronous API from Python, `depth` commands in flight. Arguments and result as in libnbd.c.

import json
import sys
import time

import nbd

work = dict(arg.split("=", 1) for arg in sys.argv[1:])
op = work["op"]
size = int(work["size"])
depth = int(work["depth"])
image = int(work["image"])
extents = int(work["extents"])
check = work["check"] == "pattern"
interval = 256 if size > 65536 else 64

handle = nbd.NBD()
handle.set_request_structured_replies(work["replies"] != "simple")
if op == "blockStatus":
    handle.add_meta_context(nbd.CONTEXT_BASE_ALLOCATION)
handle.connect_uri(work["uri"])

state = 0x9E3779B9
block = -1
issued = 0
done = 0
verified = 0
samples = []
measuring = False
stopping = False
free = []


def next_offset(index):
    """Small ranges at random, large ones in order; writers have every depth-th range to themselves."""
    global state, block
    stride = depth if op == "pwrite" else 1
    blocks = image // size // stride
    if size >= 65536:
        block += 1
        at = block // stride % blocks
    else:
        state ^= (state << 13) & 0xFFFFFFFF
        state ^= state >> 17
        state ^= (state << 5) & 0xFFFFFFFF
        at = state % blocks
    return (at * stride + (index if stride > 1 else 0)) * size


def is_pattern(data, at, offset):
    return int.from_bytes(data[at : at + 8], "big") == offset + at


class Slot:
    def __init__(self, index):
        self.index = index
        self.offset = -1
        self.start = 0.0
        self.number = 0
        if op == "pwrite":
            self.buffer = nbd.Buffer.from_bytearray(bytearray([97 + index % 26]) * size)
        else:
            self.buffer = nbd.Buffer(size)

    def complete(self, error):
        global done
        if error.value:
            sys.exit(f"{op}: error {error.value}")
        done += 1
        if measuring and self.start:
            samples.append((time.perf_counter() - self.start) * 1e6)
        if check:
            self.verify()
        free.append(self)
        return 1  # retires the command

    def verify(self):
        global verified
        if self.number % interval != 0:
            return
        data = self.buffer.to_bytearray()
        if not all(is_pattern(data, at, self.offset) for at in range(0, size, 4096)):
            sys.exit("wrong data")
        if not is_pattern(data, size - 8, self.offset):
            sys.exit("wrong data")
        verified += 1

    def extent(self, _context, _offset, entries, _error):
        global verified
        if len(entries) != 2 * extents:
            sys.exit(f"{len(entries) // 2} extents")
        verified += 1
        return 0

    def issue(self):
        global issued
        self.number = issued
        issued += 1
        self.start = time.perf_counter() if issued % 8 == 0 or depth == 1 else 0.0
        self.offset = next_offset(self.index)
        if op in ("pread", "preadInto"):
            handle.aio_pread(self.buffer, self.offset, self.complete)
        elif op == "pwrite":
            handle.aio_pwrite(self.buffer, self.offset, self.complete)
        elif op == "blockStatus":
            handle.aio_block_status(image, 0, self.extent, self.complete)
        else:
            handle.aio_cache(size, self.offset, self.complete)


def peak_kib():
    with open("/proc/self/status") as status:
        return next((int(line.split()[1]) for line in status if line.startswith("VmHWM")), 0)


free.extend(Slot(index) for index in range(depth))
begin = time.perf_counter()
since = before = before_cpu = 0
while not stopping or len(free) < depth:
    while free and not stopping:
        free.pop().issue()
    if len(free) < depth:
        handle.poll(-1)
    now = time.perf_counter()
    if stopping:
        continue
    if not measuring:
        if now - begin >= float(work["warmup"]):
            measuring, since, before, before_cpu = True, now, done, time.process_time()
    elif now - since >= float(work["seconds"]):
        measuring, stopping = False, True
        result = {"ops": done - before, "seconds": now - since, "cpuUs": (time.process_time() - before_cpu) * 1e6}

if op == "pwrite":
    # What was written last is read back.
    for slot in free[:16]:
        if handle.pread(size, slot.offset) != slot.buffer.to_bytearray():
            sys.exit("read back wrong data")
        verified += 1
samples.sort()
result.update(
    verified=verified,
    p50=samples[len(samples) // 2] if samples else 0,
    p99=samples[len(samples) * 99 // 100] if samples else 0,
    peakKib=peak_kib(),
)
print(json.dumps(result))
handle.shutdown()
