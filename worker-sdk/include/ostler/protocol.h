/* The private channel between ostlerd and a worker, version 1: the constants of both sides. What
 * they mean, and how to write an SDK in another language, is in docs/worker-protocol.md.
 *
 * A C header without functions. All numbers are in the machine's own byte order: both ends are
 * always on one machine. */
#pragma once

/* NOLINTBEGIN(modernize-deprecated-headers,readability-identifier-naming): it is C. */

#include <stdint.h>

#define OSTLER_PROTOCOL_VERSION 1

/* --- The environment ---------------------------------------------------------------------------
 *
 * Descriptors, in decimal. Set for every worker; a program that is not built on an SDK leaves them
 * alone. */
#define OSTLER_ENV_CHANNEL_FD "OSTLER_CHANNEL_FD"       /* a SOCK_SEQPACKET socket */
#define OSTLER_ENV_SCOREBOARD_FD "OSTLER_SCOREBOARD_FD" /* OSTLER_SCOREBOARD_SIZE bytes to map */

/* The pool's `worker:` settings: `key=value`, separated by blanks, only those that the
 * configuration sets. Durations are in milliseconds, sizes in bytes. */
#define OSTLER_ENV_WORKER_OPTIONS "OSTLER_WORKER_OPTIONS"

/* After so many requests the worker says OSTLER_RECYCLE (`recycle.requests`, jitter included). */
#define OSTLER_ENV_RECYCLE_REQUESTS "OSTLER_RECYCLE_REQUESTS"

/* "1": the worker is warmed up. Though it is ready, it accepts nothing before OSTLER_ACCEPT. */
#define OSTLER_ENV_WARMUP "OSTLER_WARMUP"

/* "dispatch": the worker gets no listeners; the manager accepts, and hands it connections over the
 * channel (`accept: dispatch`). Not set otherwise. */
#define OSTLER_ENV_ACCEPT "OSTLER_ACCEPT"

/* --- The channel -------------------------------------------------------------------------------
 *
 * Every message is one packet of exactly this. */
struct ostler_message {
  uint32_t type;
  uint32_t count;
  uint64_t value;
};

/* From the worker. */
enum {
  /* The first one: it speaks the channel. value: OSTLER_PROTOCOL_VERSION. */
  OSTLER_HELLO = 1,
  /* It has begun to have work, and `awake` on its page is set: from now on the page is read, until
   * `awake` is found to be 0 again. */
  OSTLER_AWAKE = 2,
  /* It has served as many requests as it was to, and asks to be replaced. It goes on serving until
   * it is asked to stop. */
  OSTLER_RECYCLE = 3,
  /* It has room for another connection, having found `wanted` on its page set (and reset it). */
  OSTLER_ROOM = 4,
  /* After OSTLER_DRAIN: connections that wait for their next request, for another worker to serve.
   * count: how many descriptors come along; value: the listener, as in OSTLER_DISPATCH. */
  OSTLER_RETURN = 5,
  /* The same as READY=1 on the notify socket, which it need not use for that. */
  OSTLER_READY = 6,
  /* Of an OSTLER_DISPATCH it has got fewer connections than were sent, because its table of
   * descriptors was full: the others are for another worker. count: how many; value: how many
   * connections came before these, in all. Sent before they are added to `taken`. */
  OSTLER_NOT_TAKEN = 7
};

/* From the manager. */
enum {
  /* A connection to serve, which comes along as one descriptor (SCM_RIGHTS). count:
   * OSTLER_PRIVATE. */
  OSTLER_CONNECTION = 101,
  /* The warm-up is over: begin to accept. */
  OSTLER_ACCEPT = 102,
  /* Connections to serve. count: how many descriptors come along, OSTLER_BATCH at most; value:
   * which of the pool's listeners they came in by, from 0. The worker adds them to `taken` before
   * it reads from any of them: what it has not taken when it dies is given to another. Those for
   * which it has no descriptors it names first, in OSTLER_NOT_TAKEN. */
  OSTLER_DISPATCH = 103,
  /* The stop signal follows, and others go on serving: connections that have no request in flight
   * are to be handed back (OSTLER_RETURN), not closed. */
  OSTLER_DRAIN = 104
};

#define OSTLER_BATCH 64

/* The manager's own connection, for a health check or a warm-up request: it is answered like any
 * other, whatever else is going on, and is not counted on the page. */
#define OSTLER_PRIVATE 1

/* --- The scoreboard ----------------------------------------------------------------------------
 *
 * One page of memory, the worker's own: it writes, the manager reads. Written with atomic stores
 * of whole fields. Times are nanoseconds of CLOCK_MONOTONIC; 0 is none. */
#define OSTLER_SCOREBOARD_SIZE 4096
#define OSTLER_SCOREBOARD_MAGIC UINT64_C(0x315352454c54534f) /* "OSTLERS1" */
#define OSTLER_REQUESTS_SHOWN 64
#define OSTLER_REQUEST_TEXT 32

enum {
  OSTLER_CLASS_OTHER = 0,
  OSTLER_CLASS_SYNC = 1,
  OSTLER_CLASS_THREADS = 2,
  OSTLER_CLASS_ASYNC = 3
};

struct ostler_scoreboard {
  /* Written by the manager before the worker starts. */
  uint64_t magic;
  uint32_t version; /* OSTLER_PROTOCOL_VERSION */
  uint32_t size;    /* OSTLER_SCOREBOARD_SIZE */

  /* Written by the worker. */
  uint32_t worker_class;
  uint32_t capacity;    /* the most connections it has open before it stops accepting */
  uint64_t awake;       /* not 0 from OSTLER_AWAKE on until it has had no work for a while */
  uint64_t beat;        /* the last sign of progress of its loop, while it has work */
  uint64_t requests;    /* answered */
  uint64_t accepted;    /* connections accepted */
  uint64_t connections; /* connections open */
  uint64_t active;      /* requests being served */
  uint64_t busy_since;  /* since when `active` has not been 0 */
  uint64_t taken;       /* connections taken from OSTLER_DISPATCH */
  uint64_t concurrency; /* the most requests it serves at the same time; 0: its CPU is the limit */

  /* Written by the manager: not 0 while a connection waits for room anywhere in the pool. The
   * worker looks when it gets room, and says OSTLER_ROOM if it finds it set. */
  uint64_t wanted;
  /* Written by the worker: of `taken`, those that it has named in OSTLER_NOT_TAKEN. */
  uint64_t not_taken;
  uint64_t reserved[18];

  /* The requests being served, as far as there is room. An entry is in use while its start is not
   * 0. The text is written before the start, the start is reset first at the end. */
  uint64_t start[OSTLER_REQUESTS_SHOWN];
  /* The last sign of progress of the thread that serves it; 0 if it does not hold a thread. */
  uint64_t progress[OSTLER_REQUESTS_SHOWN];
  /* Until then it may take, whatever the limits say; 0 if its handler asked for no more time. */
  uint64_t until[OSTLER_REQUESTS_SHOWN];
  uint32_t thread[OSTLER_REQUESTS_SHOWN]; /* gettid(2) of that thread */
  /* Method and path, cut, not terminated if full. */
  char text[OSTLER_REQUESTS_SHOWN][OSTLER_REQUEST_TEXT];
};

/* NOLINTEND(modernize-deprecated-headers,readability-identifier-naming) */
