/* The most that any client can get from a server: the request bytes, and reply bytes that are counted and not looked
 * at, after the first reply has told how long they are.
 *
 * How a client spreads its requests decides how well the server's threads run. So it works in several ways, one after
 * the other, and tells of the best: requests as soon as one reply, a quarter or half of the window is due, and waiting in
 * poll() or without sleeping. Reads land in one buffer that stays in the processor's cache.
 *
 * gcc -O2 -Wall -o ceiling ceiling.c
 */

#define _GNU_SOURCE

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define REQUEST 28
#define SCRATCH (4 << 20)
#define MAX_DEPTH 64
#define WARMUP 0.05

static const char *uri = "", *op_name = "pread";
static uint64_t size = 4096, image = 64 << 20;
static unsigned depth = 1;
static double seconds = 1;
static bool simple, check_pattern;

static int type, sock;
static char *scratch, *payload;
static char headers[MAX_DEPTH][REQUEST];
static struct iovec iov[2 * MAX_DEPTH];
static unsigned n_iov, next_iov;
static uint64_t cookie, reply_length, got;
static unsigned in_flight;
static uint32_t random_state = 0x9e3779b9;

static void fail(const char *what) {
  fprintf(stderr, "ceiling: %s: %s\n", what, strerror(errno));
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

static void put32(char *to, uint32_t value) {
  value = htobe32(value);
  memcpy(to, &value, 4);
}

static void put64(char *to, uint64_t value) {
  value = htobe64(value);
  memcpy(to, &value, 8);
}

static uint32_t get32(const char *from) {
  uint32_t value;
  memcpy(&value, from, 4);
  return be32toh(value);
}

static void read_all(char *to, size_t length) {
  while (length > 0) {
    ssize_t n = read(sock, to, length);
    if (n <= 0) fail("read");
    to += n, length -= n;
  }
}

static void write_all(const char *from, size_t length) {
  while (length > 0) {
    ssize_t n = write(sock, from, length);
    if (n <= 0) fail("write");
    from += n, length -= n;
  }
}

/* The handshake, over nbd+unix:///?socket=PATH or nbd://HOST:PORT as the benchmark writes them. */

static void open_socket(void) {
  const char *path = strstr(uri, "socket=");
  int one = 1;
  if (path != NULL) {
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path + 7, sizeof address.sun_path - 1);
    sock = socket(AF_UNIX, SOCK_STREAM, 0);
    if (connect(sock, (struct sockaddr *)&address, sizeof address) == -1) fail("connect");
  } else {
    char host[256], port[16];
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    if (sscanf(uri, "nbd://%255[^:]:%15[0-9]", host, port) != 2) fail("uri");
    if (getaddrinfo(host, port, &hints, &found) != 0) fail("host");
    sock = socket(found->ai_family, SOCK_STREAM, 0);
    if (connect(sock, found->ai_addr, found->ai_addrlen) == -1) fail("connect");
    setsockopt(sock, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  }
}

static void option(uint32_t number, uint32_t length) {
  char request[22] = "IHAVEOPT", reply[20];
  put32(request + 8, number);
  put32(request + 12, length);
  write_all(request, 16 + length);
  do {
    read_all(reply, sizeof reply);
    read_all(scratch, get32(reply + 16));
  } while (get32(reply + 12) == 3); /* NBD_REP_INFO */
  if (number == 7 && get32(reply + 12) != 1) fail("NBD_OPT_GO");
}

static void request(char *header, uint64_t offset) {
  put32(header, 0x25609513);
  put32(header + 4, type);
  put64(header + 8, ++cookie);
  put64(header + 16, offset);
  put32(header + 24, size);
}

/* One command, to learn how long its reply is. */
static void probe(void) {
  char header[20];
  uint64_t length;
  request(headers[0], 0);
  write_all(headers[0], REQUEST);
  if (type == 1) write_all(payload, size);
  read_all(header, 16);
  if (get32(header) == 0x67446698) {
    reply_length = 16 + (type == 0 ? size : 0);
  } else {
    read_all(header + 16, 4);
    reply_length = 20 + get32(header + 16);
    if (header[5] != 1) fail("a reply in several chunks");
  }
  if (reply_length > SCRATCH) fail("size");
  length = reply_length - (get32(header) == 0x67446698 ? 16 : 20);
  read_all(scratch, length);
  /* The last of the 8-byte words, each of which holds its own offset. */
  if (check_pattern && get32(scratch + length - 4) != size - 8) fail("wrong data");
}

static uint64_t next_offset(void) {
  static uint64_t sequential;
  if (size >= 65536) return sequential++ % (image / size) * size;
  random_state ^= random_state << 13;
  random_state ^= random_state >> 17;
  random_state ^= random_state << 5;
  return random_state % (image / size) * size;
}

/* Fills the window, if what is to be sent was sent. */
static void issue(unsigned window) {
  if (next_iov < n_iov) return;
  for (next_iov = n_iov = 0; in_flight < window; in_flight++) {
    char *header = headers[n_iov / 2];
    request(header, next_offset());
    iov[n_iov++] = (struct iovec){.iov_base = header, .iov_len = REQUEST};
    iov[n_iov++] = (struct iovec){.iov_base = payload + cookie % 16 * size, .iov_len = type == 1 ? size : 0};
  }
}

static void send_some(void) {
  while (next_iov < n_iov) {
    ssize_t n = writev(sock, iov + next_iov, n_iov - next_iov);
    if (n == -1 && errno == EAGAIN) return;
    if (n == -1) fail("writev");
    for (; next_iov < n_iov && (size_t)n >= iov[next_iov].iov_len; next_iov++) n -= iov[next_iov].iov_len;
    if (next_iov == n_iov) return;
    iov[next_iov].iov_base = (char *)iov[next_iov].iov_base + n;
    iov[next_iov].iov_len -= n;
  }
}

/* Bytes that have come are replies; true if there were any. */
static bool receive(uint64_t *done) {
  ssize_t n = read(sock, scratch, SCRATCH / 16);
  if (n == -1 && errno == EAGAIN) return false;
  if (n <= 0) fail("read");
  for (got += n; got >= reply_length; got -= reply_length) {
    in_flight--;
    (*done)++;
  }
  return true;
}

struct result {
  uint64_t ops;
  double seconds, cpu;
};

static struct result work(unsigned hold, bool spin, double duration) {
  struct result r = {0};
  double begin = now(), from = 0, from_cpu = 0;
  uint64_t done = 0, from_done = 0;
  unsigned turns = 0;
  for (;;) {
    struct pollfd fd = {.fd = sock, .events = POLLIN};
    if (depth - in_flight >= hold) issue(depth);
    send_some();
    if (next_iov < n_iov) fd.events |= POLLOUT;
    if (!spin && poll(&fd, 1, -1) == -1) fail("poll");
    receive(&done);
    if (++turns % 16 != 0) continue;
    if (from == 0 && now() - begin >= WARMUP) from = now(), from_cpu = cpu_us(), from_done = done;
    if (from != 0 && now() - from >= duration) break;
  }
  r = (struct result){done - from_done, now() - from, cpu_us() - from_cpu};
  /* The next way begins with nothing in flight. */
  while (in_flight > 0 || next_iov < n_iov) {
    send_some();
    receive(&done);
  }
  return r;
}

int main(int argc, char **argv) {
  struct result best = {0};
  unsigned hold, last = 0;
  int i, share, spin;
  char greeting[18];
  for (i = 1; i < argc; i++) {
    char *value = strchr(argv[i], '=');
    if (value == NULL) exit(2);
    *value++ = '\0';
    if (strcmp(argv[i], "uri") == 0) uri = value;
    else if (strcmp(argv[i], "op") == 0) op_name = value;
    else if (strcmp(argv[i], "size") == 0) size = strtoull(value, NULL, 10);
    else if (strcmp(argv[i], "depth") == 0) depth = atoi(value);
    else if (strcmp(argv[i], "image") == 0) image = strtoull(value, NULL, 10);
    else if (strcmp(argv[i], "seconds") == 0) seconds = atof(value);
    else if (strcmp(argv[i], "replies") == 0) simple = strcmp(value, "simple") == 0;
    else if (strcmp(argv[i], "check") == 0) check_pattern = strcmp(value, "pattern") == 0;
  }
  type = strcmp(op_name, "pwrite") == 0 ? 1 : strcasestr(op_name, "cache") ? 5 : 0;
  if (depth > MAX_DEPTH) depth = MAX_DEPTH;
  scratch = malloc(SCRATCH);
  payload = malloc(16 * size);
  if (scratch == NULL || payload == NULL) fail("memory");
  memset(scratch, 1, SCRATCH);
  memset(payload, 1, 16 * size);

  open_socket();
  read_all(greeting, sizeof greeting);
  put32(greeting, 3); /* fixed newstyle, no zeroes */
  write_all(greeting, 4);
  if (!simple) option(8, 0); /* NBD_OPT_STRUCTURED_REPLY */
  option(7, 6);              /* NBD_OPT_GO */
  probe();
  fcntl(sock, F_SETFL, O_NONBLOCK);

  for (share = 0; share <= 2; share++) {
    hold = share == 0 ? 1 : depth * share / 4;
    if (hold <= last) continue;
    last = hold;
    for (spin = 0; spin <= 1; spin++) {
      struct result r = work(hold, spin, seconds / 4);
      if (r.ops * best.seconds >= best.ops * r.seconds) best = r;
    }
  }
  printf("{\"ops\":%llu,\"seconds\":%f,\"cpuUs\":%.0f,\"verified\":%d,\"p50\":0,\"p99\":0,\"peakKib\":0}\n",
         (unsigned long long)best.ops, best.seconds, best.cpu, check_pattern);
  return 0;
}
