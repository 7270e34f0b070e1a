#include "runtime/notify_sockets.hpp"

#include <spdlog/spdlog.h>

#include <boost/asio/post.hpp>
#include <chrono>
#include <system_error>
#include <utility>

#include "runtime/limits.hpp"

namespace ostler::runtime {

using Clock = std::chrono::steady_clock;

NotifySockets::NotifySockets(boost::asio::io_context& context, RemovalWatch& removals, Hooks hooks)
    : context_(context), removals_(removals), hooks_(std::move(hooks)), timer_(context) {}

NotifySockets::~NotifySockets() = default;

std::string NotifySockets::open_folder(const std::string& control_socket) {
  if (control_socket.size() > kControlPathBytes) {
    return "control socket " + control_socket + ": the path has " +
           std::to_string(control_socket.size()) + " bytes; with more than " +
           std::to_string(kControlPathBytes) +
           " there is no room for the workers' notify sockets beside it";
  }
  path_ = control_socket + ".notify";
  return folder_.open(path_);
}

std::string NotifySockets::open(core::WorkerId worker, const NotifyOwner& owner) {
  Entry entry;
  entry.name = std::to_string(worker.value);
  NotifySocket::Hooks hooks;
  hooks.kinship = [this](pid_t pid) { return kinship_of(pid, hooks_.worker_of); };
  hooks.name_of = hooks_.name_of;
  hooks.deliver = [this, worker](const Notification& notification) {
    hooks_.deliver(worker, notification);
  };
  hooks.readable = [this](const std::shared_ptr<NotifySocket>& socket) {
    waiting_.push_back(socket);
    schedule({});
  };
  hooks.refused = [this] { ++rejected_; };
  entry.socket = std::make_shared<NotifySocket>(context_, worker, owner, std::move(hooks));
  if (!folder_.is_there()) restore();
  bind(entry);
  const std::string path = folder_.socket_path(entry.name);
  entries_.insert_or_assign(worker, std::move(entry));
  return path;
}

bool NotifySockets::bind(Entry& entry) {
  NotifyBinding made = folder_.make(entry.name, entry.socket->owner());
  if (made.error != 0) {
    complain(made.step + " " + folder_.socket_path(entry.name) + ": " +
             std::generic_category().message(made.error));
    return false;
  }
  removals_.forget(entry.watch);
  entry.watch = removals_.add(folder_.socket_path(entry.name));
  entry.file = made.file;
  entry.socket->add(std::move(made.socket));
  complaint_.clear();
  return true;
}

// Once, until it is something else.
void NotifySockets::complain(const std::string& what) {
  if (complaint_ == what) return;
  complaint_ = what;
  spdlog::error("notify socket: {}", what);
}

void NotifySockets::started(core::WorkerId worker, pid_t pid) {
  const auto found = entries_.find(worker);
  if (found != entries_.end()) found->second.socket->belongs_to(pid);
}

void NotifySockets::drain(core::WorkerId worker) {
  const auto found = entries_.find(worker);
  if (found == entries_.end()) return;
  const auto socket = found->second.socket;
  const auto end = Clock::now() + limits::kNotifyDrain;
  while (socket->receive(limits::kNotifyBatch) == NotifySocket::Left::kMore && Clock::now() < end) {
  }
}

void NotifySockets::close(core::WorkerId worker) {
  const auto found = entries_.find(worker);
  if (found == entries_.end()) return;
  removals_.forget(found->second.watch);
  folder_.remove(found->second.name);
  found->second.socket->close();
  entries_.erase(found);
}

bool NotifySockets::restore() {
  bool is_restored = false;
  if (!folder_.is_there()) {
    const std::string failed = folder_.open(path_);
    if (!failed.empty()) {
      complain(failed);
      return false;
    }
    is_restored = true;
  }
  for (auto& [worker, entry] : entries_) {
    if (!folder_.has(entry.name, entry.file)) is_restored = bind(entry) || is_restored;
  }
  if (is_restored)
    spdlog::warn("the workers' notify sockets in {} were removed: made again", path_);
  return is_restored;
}

std::string NotifySockets::what_was_refused(core::WorkerId worker) const {
  const auto found = entries_.find(worker);
  return found == entries_.end() ? std::string() : found->second.socket->what_was_refused();
}

void NotifySockets::schedule(std::chrono::nanoseconds after) {
  if (std::exchange(is_scheduled_, true)) return;
  const auto turn = [this, alive = std::weak_ptr(alive_)](const boost::system::error_code& error) {
    if (error || alive.expired()) return;
    is_scheduled_ = false;
    take_turn();
  };
  if (after == after.zero()) return boost::asio::post(context_, [turn] { turn({}); });
  timer_.expires_after(after);
  timer_.async_wait(turn);
}

void NotifySockets::take_turn() {
  const auto end = Clock::now() + limits::kNotifyTurn;
  std::deque<std::shared_ptr<NotifySocket>> held;
  while (!waiting_.empty() && Clock::now() < end) {
    const auto socket = std::move(waiting_.front());
    waiting_.pop_front();
    switch (socket->receive(limits::kNotifyBatch)) {
      case NotifySocket::Left::kNothing:
        break;
      case NotifySocket::Left::kMore:
        waiting_.push_back(socket);
        break;
      case NotifySocket::Left::kHeld:
        held.push_back(socket);
        break;
    }
  }
  waiting_.insert(waiting_.end(), held.begin(), held.end());
  if (!waiting_.empty()) schedule(limits::kNotifyPause);
}

}  // namespace ostler::runtime
