/* The worker's side of the protocol between a process manager and its workers, for C and for
 * languages that can call C. What each function means is told at length in <ostler/worker.hpp>.
 *
 *   int main(void) {
 *     int fd;
 *     if (ostler_worker_open() != 0) {
 *       fprintf(stderr, "%s\n", ostler_worker_error());
 *       return 1;
 *     }
 *     ostler_worker_ready();
 *     while ((fd = ostler_worker_accept()) >= 0) {
 *       unsigned long long request = ostler_worker_request_begin(fd, "GET /");
 *       answer(fd);
 *       ostler_worker_request_end(request);
 *       ostler_worker_close_connection(fd);
 *     }
 *     ostler_worker_close();
 *     return 0;
 *   }
 *
 * There is one worker in a process. Functions that return int return 0, or what they are asked for,
 * and -1 with errno set if they fail. All but ostler_worker_open() and ostler_worker_close(), which
 * belong to the main thread, may be called from any thread between the two. No argument may be
 * NULL. A child that is forked calls none of them. */
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

/* Takes over what the manager handed to this process, and catches SIGTERM, SIGINT and SIGQUIT. The
 * soft limit of open files becomes the hard one: a program that calls select(2), which cannot
 * handle descriptors above 1023, sets it again after this. EBUSY if it is open already; why it
 * failed otherwise is in ostler_worker_error(). */
int ostler_worker_open(void);

/* Accepts no more, and closes the inherited listeners. */
void ostler_worker_close(void);

/* What the last function that failed in this thread was doing, to what, and why; until the next one
 * fails. */
const char* ostler_worker_error(void);

/* The inherited listeners from 0 on; a name lasts until ostler_worker_close(). -1 (EINVAL), NULL:
 * there is none of that number. */
int ostler_worker_listener_count(void);
int ostler_worker_listener_fd(int number);
const char* ostler_worker_listener_name(int number);

/* ENOTCONN: nobody listens. A worker goes on serving then, so the result may be ignored. */
int ostler_worker_ready(void);
int ostler_worker_status(const char* text);
int ostler_worker_heartbeat(void);
int ostler_worker_stopping(void);

/* Readable once this process was asked to stop. */
int ostler_worker_stop_fd(void);
int ostler_worker_stop_requested(void);

/* Waits for the next connection, a blocking socket, and returns its descriptor: one that the kernel
 * gave this worker in its turn, or that the manager handed to it (with `accept: dispatch` all of
 * them; then it is given no more at a time than threads have waited here). -1 with ESHUTDOWN when
 * the process was asked to stop and there are no more; then ostler_worker_stopping() has been said.
 * Nothing is accepted while no thread waits here. Give each descriptor to
 * ostler_worker_close_connection(). */
int ostler_worker_accept(void);
int ostler_worker_close_connection(int fd);

/* A request being served on that connection; `what`, a method and a path or the like, is copied. 0
 * if memory is exhausted, which the others ignore. It may end in another thread. */
unsigned long long ostler_worker_request_begin(int fd, const char* what);
void ostler_worker_request_end(unsigned long long request);

/* A sign of progress, for one that holds its thread for long; and so much time from now on, a day
 * at most, whatever the limits say. */
void ostler_worker_request_progress(unsigned long long request);
void ostler_worker_request_extend(unsigned long long request, unsigned long milliseconds);

#ifdef __cplusplus
}
#endif
