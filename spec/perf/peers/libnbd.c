/* The reference peer: libnbd's asynchronous API from C, one connection, `depth` commands in flight.
 *
 * The loop is nbdcopy's: fill the free slots, poll(), notify libnbd; completion callbacks retire their command.
 * Arguments are key=value pairs as for every measured program (see README.md); the result is one line of JSON.
 *
 * gcc -O2 -Wall -o libnbd libnbd.c -lnbd
 */

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <libnbd.h>

#define MAX_SAMPLES (1 << 20)
#define PARTS 10

enum op { PREAD, PWRITE, CACHE, BLOCK_STATUS };

struct slot {
  unsigned index;
  char *buffer;
  uint64_t offset;
  uint64_t number;
  double start; /* 0 when this command's latency is not sampled */
};

static struct nbd_handle *nbd;

/* What to do. */
static const char *uri = "";
static const char *op_name = "pread";
static enum op op;
static uint64_t size = 4096, image = 64 << 20, limit, extents;
static unsigned depth = 1;
static double seconds = 1, warmup = 0.2;
static bool simple, check_pattern, initialize = true;

/* How far it is. */
static struct slot **free_slots;
static unsigned n_free;
static uint64_t issued, done, verified, seen_extents;
static bool measuring, stopping;
static float samples[MAX_SAMPLES];
static unsigned n_samples;
static uint32_t random_state = 0x9e3779b9;
static uint64_t next_sequential;
static double part_times[PARTS + 1];

static void fail(const char *what) {
  fprintf(stderr, "%s: %s\n", what, nbd_get_error() ? nbd_get_error() : "wrong data");
  exit(EXIT_FAILURE);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec + t.tv_nsec / 1e9;
}

static double cpu_us(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e6 + u.ru_utime.tv_usec + u.ru_stime.tv_usec;
}

/* Not ru_maxrss: that one is inherited from the program that started this one. */
static long peak_kib(void) {
  char line[256];
  long kib = 0;
  FILE *f = fopen("/proc/self/status", "r");
  while (f && fgets(line, sizeof line, f))
    if (sscanf(line, "VmHWM: %ld", &kib) == 1) break;
  if (f) fclose(f);
  return kib;
}

/* Small ranges at random, large ones in order. Writers have every depth-th range to themselves, so that what each
 * wrote last can be read back. */
static uint64_t next_offset(const struct slot *slot) {
  uint64_t stride = op == PWRITE ? depth : 1, blocks = image / size / stride, block;
  if (size < 65536) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 17;
    random_state ^= random_state << 5;
    block = random_state % blocks;
  } else {
    block = next_sequential++ / stride % blocks;
  }
  return (block * stride + (stride > 1 ? slot->index : 0)) * size;
}

/* The pattern: every aligned 8 bytes hold their own offset, big-endian. */
static bool is_pattern(const char *buffer, uint64_t at, uint64_t offset) {
  uint64_t word;
  memcpy(&word, buffer + at, 8);
  return __builtin_bswap64(word) == offset + at;
}

static void verify(const struct slot *slot) {
  uint64_t at;
  if (!check_pattern) return;
  if (!is_pattern(slot->buffer, 0, slot->offset) || !is_pattern(slot->buffer, size - 8, slot->offset))
    fail("verify");
  if (slot->number % (size > 65536 ? 256 : 64) != 0) return;
  for (at = 0; at < size; at += 8)
    if (!is_pattern(slot->buffer, at, slot->offset)) fail("verify");
  verified++;
}

static int on_extents(void *opaque, const char *context, uint64_t offset, uint32_t *entries, size_t n_entries,
                      int *error) {
  size_t i;
  (void)opaque, (void)context, (void)offset, (void)error;
  /* Neighbours differ, and the lengths add up to what the list says. */
  for (i = 0; i + 3 < n_entries; i += 2)
    if (entries[i] != size || entries[i + 1] == entries[i + 3]) fail("extents");
  seen_extents = n_entries / 2;
  return 0;
}

static int on_complete(void *opaque, int *error) {
  struct slot *slot = opaque;
  if (*error) fail(op_name);
  done++;
  if (slot->start != 0 && measuring && n_samples < MAX_SAMPLES) samples[n_samples++] = (now() - slot->start) * 1e6;
  if (op == PREAD) verify(slot);
  if (limit > 0 && done % (limit / PARTS) == 0) part_times[done / (limit / PARTS)] = now();
  free_slots[n_free++] = slot;
  return 1; /* retires the command */
}

static void issue(struct slot *slot) {
  nbd_completion_callback complete = {.callback = on_complete, .user_data = slot};
  int64_t cookie = -1;
  slot->number = issued++;
  slot->start = issued % 8 == 0 || depth == 1 || size > 65536 ? now() : 0;
  slot->offset = next_offset(slot);
  switch (op) {
  case PREAD:
    cookie = nbd_aio_pread(nbd, slot->buffer, size, slot->offset, complete, 0);
    break;
  case PWRITE:
    memcpy(slot->buffer, &slot->offset, 8);
    cookie = nbd_aio_pwrite(nbd, slot->buffer, size, slot->offset, complete, 0);
    break;
  case CACHE:
    cookie = nbd_aio_cache(nbd, size, slot->offset, complete, 0);
    break;
  case BLOCK_STATUS:
    cookie = nbd_aio_block_status(nbd, image, 0, (nbd_extent_callback){.callback = on_extents}, complete, 0);
    break;
  }
  if (cookie == -1) fail(op_name);
}

static void turn(void) {
  struct pollfd fd = {.fd = nbd_aio_get_fd(nbd)};
  unsigned direction = nbd_aio_get_direction(nbd);
  if (direction & LIBNBD_AIO_DIRECTION_READ) fd.events |= POLLIN;
  if (direction & LIBNBD_AIO_DIRECTION_WRITE) fd.events |= POLLOUT;
  if (poll(&fd, 1, -1) == -1 && errno != EINTR) fail("poll");
  direction = nbd_aio_get_direction(nbd);
  if ((direction & LIBNBD_AIO_DIRECTION_READ) && (fd.revents & (POLLIN | POLLHUP))) {
    if (nbd_aio_notify_read(nbd) == -1) fail("read");
  } else if ((direction & LIBNBD_AIO_DIRECTION_WRITE) && (fd.revents & POLLOUT)) {
    if (nbd_aio_notify_write(nbd) == -1) fail("write");
  }
}

/* What was written last is read back: the first word is its offset, the rest what the slot's buffer holds. */
static void read_back(struct slot *slot) {
  char *buffer = malloc(size);
  if (nbd_pread(nbd, buffer, size, slot->offset, 0) == -1) fail("read back");
  if (memcmp(buffer, slot->buffer, size) != 0) fail("read back");
  free(buffer);
  verified++;
}

static int compare(const void *a, const void *b) {
  float x = *(const float *)a, y = *(const float *)b;
  return x < y ? -1 : x > y;
}

static void parse(int argc, char **argv) {
  int i;
  for (i = 1; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (value == NULL) exit(2);
    *value++ = '\0';
    if (strcmp(argv[i], "uri") == 0) uri = value;
    else if (strcmp(argv[i], "op") == 0) op_name = value;
    else if (strcmp(argv[i], "size") == 0) size = strtoull(value, NULL, 10);
    else if (strcmp(argv[i], "depth") == 0) depth = atoi(value);
    else if (strcmp(argv[i], "image") == 0) image = strtoull(value, NULL, 10);
    else if (strcmp(argv[i], "ops") == 0) limit = strtoull(value, NULL, 10);
    else if (strcmp(argv[i], "extents") == 0) extents = strtoull(value, NULL, 10);
    else if (strcmp(argv[i], "seconds") == 0) seconds = atof(value);
    else if (strcmp(argv[i], "warmup") == 0) warmup = atof(value);
    else if (strcmp(argv[i], "replies") == 0) simple = strcmp(value, "simple") == 0;
    else if (strcmp(argv[i], "check") == 0) check_pattern = strcmp(value, "pattern") == 0;
    else if (strcmp(argv[i], "initialize") == 0) initialize = strcmp(value, "no") != 0;
  }
  if (strcmp(op_name, "pwrite") == 0) op = PWRITE;
  else if (strstr(op_name, "Cache") || strcmp(op_name, "cache") == 0) op = CACHE;
  else if (strcmp(op_name, "blockStatus") == 0) op = BLOCK_STATUS;
  else op = PREAD;
}

int main(int argc, char **argv) {
  double begin, from = 0, to = 0, from_cpu = 0, to_cpu = 0;
  uint64_t from_done = 0, to_done = 0;
  struct slot *slots;
  unsigned i;

  parse(argc, argv);
  nbd = nbd_create();
  if (nbd == NULL) fail("create");
  nbd_set_request_structured_replies(nbd, !simple);
  nbd_set_pread_initialize(nbd, initialize);
  if (op == BLOCK_STATUS) nbd_add_meta_context(nbd, LIBNBD_CONTEXT_BASE_ALLOCATION);
  if (strncmp(uri, "nbds", 4) == 0) nbd_set_uri_allow_local_file(nbd, true);
  if (nbd_connect_uri(nbd, uri) == -1) fail("connect");

  slots = calloc(depth, sizeof *slots);
  free_slots = calloc(depth, sizeof *free_slots);
  for (i = 0; i < depth; i++) {
    slots[i].index = i;
    slots[i].buffer = malloc(size);
    memset(slots[i].buffer, 'a' + i % 26, size);
    free_slots[n_free++] = &slots[i];
  }

  begin = part_times[0] = now();
  if (limit > 0) {
    measuring = true;
    from = begin;
    from_cpu = cpu_us();
  }
  while (!stopping || n_free < depth) {
    while (n_free > 0 && !stopping && (limit == 0 || issued < limit)) issue(free_slots[--n_free]);
    if (n_free < depth) turn();
    if (stopping) continue;
    if (limit > 0) {
      stopping = done == limit;
      if (!stopping) continue;
    } else if (!measuring) {
      double t = now();
      if (t - begin < warmup) continue;
      measuring = true;
      from = t;
      from_cpu = cpu_us();
      from_done = done;
      continue;
    } else if (now() - from < seconds) {
      continue;
    }
    to = now();
    to_cpu = cpu_us();
    to_done = done;
    measuring = false;
    stopping = true;
  }

  if (op == PWRITE)
    for (i = 0; i < depth && i < 16; i++) read_back(&slots[i]);
  if (op == BLOCK_STATUS && seen_extents != extents) fail("extents");
  if (op == BLOCK_STATUS) verified = done;

  qsort(samples, n_samples, sizeof *samples, compare);
  printf("{\"ops\":%" PRIu64 ",\"seconds\":%.6f,\"cpuUs\":%.0f,\"verified\":%" PRIu64 ",\"p50\":%.2f,\"p99\":%.2f,"
         "\"peakKib\":%ld",
         to_done - from_done, to - from, to_cpu - from_cpu, verified, n_samples ? samples[n_samples / 2] : 0,
         n_samples ? samples[(uint64_t)n_samples * 99 / 100] : 0, peak_kib());
  if (limit > 0) {
    printf(",\"partSeconds\":[");
    for (i = 0; i < PARTS; i++) printf("%s%.6f", i ? "," : "", part_times[i + 1] - part_times[i]);
    printf("]");
  }
  printf("}\n");
  nbd_shutdown(nbd, 0);
  nbd_close(nbd);
  return 0;
}
