// Why a worker, a listener or a reload failed: as data, and as a sentence.
#pragma once

#include <string>

#include "core/ids.hpp"

namespace ostler::core {

enum class FailureKind {
  kSpawn,             // the process could not be started: `stage`, `error`
  kExited,            // it ended by itself: `code`; `stage`: "4711 (nginx)" that it left running
  kSignaled,          // a signal ended it: `code` is the signal
  kStartTimeout,      // not ready in time; `stage`: what is known of it, if anything
  kHeartbeatTimeout,  // silent for too long
  kTrigger,           // it said WATCHDOG=trigger
  kRequestTimeout,    // a request took too long: `stage` says which
  kSilent,            // it has work and makes no progress; `stage`: the request, if it is one
  kStalled,           // it does not accept what waits for it: `stage`: "12 connections"
  kNoChannel,         // it does not speak the channel, which its pool's settings need
  kNotDispatchable,   // nor which its pool's way to accept needs
  kGarbled,           // it sent rubbish on the channel, which its pool's settings need
  kWarmup,            // a warm-up request was not answered as it should: `stage`
  kUnhealthy,         // a health check failed: `stage`
  kStopTimeout,       // still there when its drain had to be over
  kListener,          // a socket could not be opened: `stage` says what, `error` why
  kConfiguration,     // the file has a fault: `stage` says which
};

struct Failure {
  FailureKind kind = FailureKind::kExited;
  std::string stage;  // kSpawn: "exec", "setuid"…; kListener: "bind tcp://127.0.0.1:80"; as above
  int error = 0;      // errno; 0: `stage` says all
  int code = 0;       // exit code or signal number
  bool core_dumped = false;
  bool was_ready = false;  // it had been ready before
  Duration after{};        // since it was started, or the limit it exceeded
  bool operator==(const Failure&) const = default;
  template <class Archive>
  void fields(Archive& a) {
    a(kind)(stage)(error)(code)(core_dumped)(was_ready)(after);
  }
};

// One sentence without a full stop, e.g. "exited with code 3 after 0.2s, before it was ready".
std::string describe(const Failure& failure);

// "SIGTERM" for 15; "signal 99" for what has no name.
std::string signal_name(int signal);

}  // namespace ostler::core
