// Coroutines that nobody waits for: what escapes from one is logged, not lost.
#pragma once

#include <spdlog/spdlog.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/error.hpp>
#include <boost/system/system_error.hpp>
#include <exception>
#include <utility>

namespace ostler::runtime {

// `what` names the coroutine in the log and outlives it (a literal). A cancelled operation is a
// normal end.
inline void spawn_logged(const boost::asio::any_io_executor& executor, const char* what,
                         boost::asio::awaitable<void> coroutine) {
  boost::asio::co_spawn(executor, std::move(coroutine), [what](const std::exception_ptr& escaped) {
    if (!escaped) return;
    try {
      std::rethrow_exception(escaped);
    } catch (const boost::system::system_error& error) {
      if (error.code() == boost::asio::error::operation_aborted) return;
      spdlog::error("{}: {}", what, error.what());
    } catch (const std::exception& error) {
      spdlog::error("{}: {}", what, error.what());
    } catch (...) {
      spdlog::error("{}: an exception of an unknown type", what);
    }
  });
}

}  // namespace ostler::runtime
