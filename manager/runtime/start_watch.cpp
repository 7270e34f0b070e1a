#include "runtime/start_watch.hpp"

#include <fmt/chrono.h>

#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>
#include <tuple>
#include <utility>

#include "runtime/limits.hpp"

namespace ostler::runtime {

struct StartWatch::Entry {
  Entry(boost::asio::io_context& context, std::unique_ptr<Newborn> process)
      : newborn(std::move(process)), over(context, newborn->over()), timer(context) {}
  ~Entry() { over.release(); }  // the newborn's
  Entry(const Entry&) = delete;
  Entry& operator=(const Entry&) = delete;

  std::unique_ptr<Newborn> newborn;
  boost::asio::posix::stream_descriptor over;
  boost::asio::steady_timer timer;
  std::string late;      // why it was killed
  bool counted = false;  // as a process that does not die
};

StartWatch::StartWatch(boost::asio::io_context& context, Hooks hooks)
    : context_(context), hooks_(std::move(hooks)) {}

StartWatch::~StartWatch() = default;

void StartWatch::add(core::WorkerId worker, std::unique_ptr<Newborn> newborn) {
  Entry& entry = *entries_.emplace(worker, std::make_unique<Entry>(context_, std::move(newborn)))
                      .first->second;
  await(worker, entry);
  limit(worker, entry);
}

void StartWatch::await(core::WorkerId worker, Entry& entry) {
  entry.over.async_wait(boost::asio::posix::descriptor_base::wait_read,
                        [this, worker](const boost::system::error_code& error) {
                          if (!error) settle(worker);
                        });
}

void StartWatch::limit(core::WorkerId worker, Entry& entry) {
  entry.timer.expires_after(entry.late.empty() ? limits::kExecPatience : limits::kDeathPatience);
  entry.timer.async_wait([this, worker](const boost::system::error_code& error) {
    if (!error) overdue(worker);
  });
}

void StartWatch::overdue(core::WorkerId worker) {
  settle(worker);
  const auto found = entries_.find(worker);
  if (found == entries_.end()) return;
  Entry& entry = *found->second;
  if (entry.newborn->look() == Newborn::State::kFailed) return;  // it is about to be reaped
  if (!entry.late.empty()) {
    entry.counted = true;
    return hooks_.executes(worker);
  }
  entry.late = fmt::format("it did not execute its program within {}; its last step: {}",
                           limits::kExecPatience, entry.newborn->at());
  limit(worker, entry);
  hooks_.late(worker, entry.late);
}

// What was killed does not come to it any more, whatever its memory says.
void StartWatch::settle(core::WorkerId worker) {
  const auto found = entries_.find(worker);
  if (found == entries_.end() || !found->second->late.empty()) return;
  if (found->second->newborn->look() != Newborn::State::kExecuted) return;
  entries_.erase(found);
  hooks_.executes(worker);
}

std::optional<std::string> StartWatch::ended(core::WorkerId worker) {
  settle(worker);
  const auto entry = entries_.extract(worker);
  if (entry.empty() || entry.mapped()->counted) return std::nullopt;
  std::ignore = entry.mapped()->newborn->look();
  if (!entry.mapped()->late.empty()) return entry.mapped()->late;
  return entry.mapped()->newborn->failure_text();
}

}  // namespace ostler::runtime
