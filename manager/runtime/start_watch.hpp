// Watches processes from clone to the execution of their program, and has those ended that do not
// get there: stopped by somebody of their user, or held by a file system that does not answer.
#pragma once

#include <boost/asio/io_context.hpp>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "core/ids.hpp"
#include "runtime/spawner.hpp"

namespace ostler::runtime {

class StartWatch {
 public:
  struct Hooks {
    // It executes its program; or SIGKILL does not end it either, and it is to be counted as a
    // process like any other that does not die.
    std::function<void(core::WorkerId)> executes;
    // It is to be killed, and why.
    std::function<void(core::WorkerId, const std::string& reason)> late;
  };

  StartWatch(boost::asio::io_context& context, Hooks hooks);
  ~StartWatch();
  StartWatch(const StartWatch&) = delete;
  StartWatch& operator=(const StartWatch&) = delete;

  // `newborn` has a process.
  void add(core::WorkerId worker, std::unique_ptr<Newborn> newborn);
  // Something came from it: if it executes its program, that is told first.
  void settle(core::WorkerId worker);
  // It has exited. Why it never executed its program; none: it did, which is told first.
  std::optional<std::string> ended(core::WorkerId worker);

 private:
  struct Entry;
  void await(core::WorkerId worker, Entry& entry);
  void limit(core::WorkerId worker, Entry& entry);
  void overdue(core::WorkerId worker);

  boost::asio::io_context& context_;
  Hooks hooks_;
  std::map<core::WorkerId, std::unique_ptr<Entry>> entries_;
};

}  // namespace ostler::runtime
