/* ostler-example-c: a worker in C. It answers each connection's request, whatever it is, with its
 * pid, as HTTP/1.0 does, one after another. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <ostler/worker.h>

/* How long a client may take, in seconds. */
#define PATIENCE 10
#define REQUEST_SIZE 8192

/* Reads up to the empty line after the request's fields. 0 if there is none. */
static int read_request(int fd, char* request) {
  size_t size = 0;
  while (size < REQUEST_SIZE - 1) {
    const ssize_t more = read(fd, request + size, REQUEST_SIZE - 1 - size);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) return 0;
    size += (size_t)more;
    request[size] = '\0';
    if (strstr(request, "\r\n\r\n") != NULL) return 1;
  }
  return 0;
}

/* "GET /path HTTP/1.1" becomes "GET /path". */
static void cut_to_target(char* request) {
  char* const target = strchr(request, ' ');
  const size_t first = target == NULL ? 0 : (size_t)(target + 1 - request);
  request[first + strcspn(request + first, " \r\n")] = '\0';
}

static void answer(int fd) {
  char text[128];
  const int size = snprintf(
      text, sizeof text,
      "HTTP/1.0 200 OK\r\nContent-Type: text/plain\r\n\r\nhello from C, pid %ld\n", (long)getpid());
  if (send(fd, text, (size_t)size, MSG_NOSIGNAL) != size) perror("answer a request");
  /* So that the answer is not lost to what the client may still be sending. */
  shutdown(fd, SHUT_WR);
  while (read(fd, text, sizeof text) > 0) {
  }
}

int main(void) {
  const struct timeval limit = {PATIENCE, 0};
  char request[REQUEST_SIZE];
  int fd;
  if (ostler_worker_open() != 0) {
    fprintf(stderr, "ostler-example-c: %s\n", ostler_worker_error());
    return 1;
  }
  ostler_worker_ready(); /* without a manager nobody is there to be told */
  while ((fd = ostler_worker_accept()) >= 0) {
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    if (read_request(fd, request)) {
      unsigned long long handle;
      cut_to_target(request);
      handle = ostler_worker_request_begin(fd, request);
      answer(fd);
      ostler_worker_request_end(handle);
    }
    ostler_worker_close_connection(fd);
  }
  if (errno != ESHUTDOWN) fprintf(stderr, "ostler-example-c: %s\n", ostler_worker_error());
  ostler_worker_close();
  return 0;
}
