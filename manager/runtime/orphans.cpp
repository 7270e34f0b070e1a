#include "runtime/orphans.hpp"

#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <limits>
#include <utility>

#include "core/failure.hpp"
#include "runtime/limits.hpp"
#include "runtime/log.hpp"
#include "runtime/procfs.hpp"

namespace ostler::runtime {
namespace {

constexpr std::uint64_t kNobody = std::numeric_limits<std::uint64_t>::max();
const std::string kUnknown = "a worker that is not known";

}  // namespace

Orphans::Orphans(boost::asio::io_context& context, Watcher& watcher)
    : watcher_(watcher), timer_(context) {
  for (const pid_t pid : own_children()) strangers_.insert(pid);
  others_ = ::getpid() == 1 || !strangers_.empty();
}

void Orphans::started(Tag tag, pid_t pid, std::string name, const control::EventView& about,
                      const StopTerms& terms) {
  watcher_.started(tag, pid);
  owners_[tag] = {std::move(name), about, pid, terms, ticks_now(), true, false, {}};
  sessions_[pid] = tag;
}

void Orphans::ended(Tag tag, bool killed) {
  changed_ = true;
  const auto owner = owners_.find(tag);
  if (owner == owners_.end()) return;
  owner->second.alive = false;
  owner->second.killed = killed;
  owner->second.deadline = Clock::now() + owner->second.terms.timeout;
}

// It may have had children of its own.
void Orphans::reaped(pid_t pid) {
  changed_ = orphans_.erase(pid) > 0 || changed_;
  strangers_.erase(pid);
}

bool Orphans::any_to_end() const {
  return changed_ || !unseen_.empty() || std::ranges::any_of(orphans_, [](const auto& entry) {
           return entry.second.state == State::kAsked || entry.second.state == State::kKilled;
         });
}

bool Orphans::is_worker(pid_t pid) const {
  const auto session = sessions_.find(pid);
  if (session == sessions_.end()) return false;
  const auto owner = owners_.find(session->second);
  return owner != owners_.end() && owner->second.alive;
}

// A child of ours cannot vanish before it is reaped here, so its pid names it for as long as we
// look. False: there are more, and the time is over.
bool Orphans::find_new(Clock::time_point until) {
  if (std::exchange(changed_, false)) unseen_ = own_children();
  while (!unseen_.empty()) {
    const pid_t pid = unseen_.back();
    unseen_.pop_back();
    if (is_worker(pid) || orphans_.contains(pid) || strangers_.contains(pid)) continue;
    if (auto orphan = look_at(pid)) orphans_.emplace(pid, std::move(*orphan));
    if (Clock::now() > until) return unseen_.empty();
  }
  return true;
}

std::optional<Orphans::Orphan> Orphans::look_at(pid_t pid) {
  const auto stat = read_stat(pid);
  if (!stat) return std::nullopt;
  Orphan orphan;
  orphan.name = stat->name;
  orphan.session = stat->session;
  orphan.started = stat->started;
  if (const auto session = sessions_.find(stat->session); session != sessions_.end()) {
    orphan.owner = session->second;
  } else if (const Tag tag = read_tag(pid); watcher_.made(tag) && owners_.contains(tag)) {
    orphan.owner = tag;
  }
  return orphan;
}

std::string Orphans::running_of(Tag tag, Clock::time_point until) {
  if (Clock::now() > until) return {};
  changed_ = true;
  find_new(until);
  changed_ = true;  // who comes to us until its parent is reaped is looked for again
  for (const auto& [pid, orphan] : orphans_) {
    if (orphan.owner != tag) continue;
    const auto stat = read_stat(pid);
    if (stat && stat->alive()) return std::to_string(pid) + " (" + stat->name + ")";
  }
  return {};
}

bool Orphans::look() {
  if (!find_new(Clock::now() + limits::kOrphanTurn)) return false;
  decide();
  forget_owners();
  arm();
  return true;
}

void Orphans::decide() {
  std::uint64_t oldest = kNobody;
  for (const auto& [tag, owner] : owners_) {
    if (owner.alive) oldest = std::min(oldest, owner.started);
  }
  for (auto& [pid, orphan] : orphans_) {
    if (orphan.state == State::kWaits) decide(pid, orphan, oldest);
  }
}

// `oldest`: when the oldest living worker was started.
void Orphans::decide(pid_t pid, Orphan& orphan, std::uint64_t oldest) {
  constexpr std::uint64_t kTicks = 1;  // both clocks are cut to ticks
  const Owner* const owner = owner_of(orphan);
  if (owner == nullptr) {
    const bool is_last_call = ending_ && ::getpid() == 1;
    const bool may_stay =
        others_ ? !is_last_call : oldest != kNobody && oldest <= orphan.started + kTicks;
    if (!may_stay) end(pid, orphan, nullptr);
    return;
  }
  if (owner->alive) return;
  if (owner->terms.leave_behind && orphan.session != owner->pid) {
    log_event(spdlog::level::info, about(pid, orphan, owner),
              "{} left process {} ({}) behind: it stays (leave_behind)", owner->name, pid,
              orphan.name);
    orphan.state = State::kStays;
    return;
  }
  end(pid, orphan, owner);
}

const Orphans::Owner* Orphans::owner_of(const Orphan& orphan) const {
  const auto found = owners_.find(orphan.owner);
  return found == owners_.end() ? nullptr : &found->second;
}

control::EventView Orphans::about(pid_t pid, const Orphan& orphan, const Owner* owner) {
  control::EventView view = owner == nullptr ? control::EventView{} : owner->about;
  view.members.emplace_back("process", std::int64_t{pid});
  view.members.emplace_back("name", orphan.name);
  return view;
}

void Orphans::end(pid_t pid, Orphan& orphan, const Owner* owner) {
  const auto now = Clock::now();
  const std::string who = owner == nullptr ? kUnknown : owner->name;
  const char* const where =
      owner != nullptr && orphan.session == owner->pid ? "" : " in a session of its own";
  orphan.deadline = owner == nullptr ? now + limits::kOrphanPatience : owner->deadline;
  const int wanted = owner == nullptr ? SIGTERM : owner->terms.signal;
  if (hurry_ || (owner != nullptr && owner->killed) || wanted == SIGKILL ||
      orphan.deadline <= now) {
    log_event(spdlog::level::warn, about(pid, orphan, owner),
              "{} left process {} ({}) behind{}: killed", who, pid, orphan.name, where);
    return kill(pid, orphan);
  }
  const int signal = stop_signal_for(pid, wanted);
  log_event(spdlog::level::warn, about(pid, orphan, owner),
            "{} left process {} ({}) behind{}: asked to stop ({})", who, pid, orphan.name, where,
            core::signal_name(signal));
  orphan.state = State::kAsked;
  ::kill(pid, signal);
  ::kill(pid, SIGCONT);  // one that stands still hears of it when it goes on
}

void Orphans::kill(pid_t pid, Orphan& orphan) {
  orphan.state = State::kKilled;
  ::kill(pid, SIGKILL);
}

// Those that are gone and have nobody left.
void Orphans::forget_owners() {
  std::set<Tag> needed;
  for (const auto& [pid, orphan] : orphans_) needed.insert(orphan.owner);
  std::erase_if(owners_, [&](const auto& entry) {
    const auto& [tag, owner] = entry;
    if (owner.alive || needed.contains(tag)) return false;
    const auto session = sessions_.find(owner.pid);
    if (session != sessions_.end() && session->second == tag) sessions_.erase(session);
    watcher_.leave(tag);
    return true;
  });
}

void Orphans::arm() {
  auto next = Clock::time_point::max();
  for (const auto& [pid, orphan] : orphans_) {
    if (orphan.state == State::kAsked) next = std::min(next, orphan.deadline);
  }
  if (next == Clock::time_point::max()) {
    timer_.cancel();
    return;
  }
  timer_.expires_at(next);
  timer_.async_wait([this](const boost::system::error_code& error) {
    if (!error) kill_overdue();
  });
}

void Orphans::kill_overdue() {
  const auto now = Clock::now();
  for (auto& [pid, orphan] : orphans_) {
    if (orphan.state != State::kAsked || orphan.deadline > now) continue;
    const Owner* const owner = owner_of(orphan);
    log_event(spdlog::level::warn, about(pid, orphan, owner),
              "process {} ({}), left behind by {}, did not stop: killed", pid, orphan.name,
              owner == nullptr ? kUnknown : owner->name);
    kill(pid, orphan);
  }
  arm();
}

// As pid 1 even those that were there before the manager end with it.
void Orphans::end_all() {
  ending_ = true;
  if (::getpid() == 1) strangers_.clear();
  changed_ = true;
}

void Orphans::kill_all() {
  hurry_ = true;
  for (auto& [pid, orphan] : orphans_) {
    if (orphan.state == State::kAsked) kill(pid, orphan);
  }
  arm();
}

}  // namespace ostler::runtime
