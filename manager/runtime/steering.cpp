#include "runtime/steering.hpp"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {

// One socket of a group, as it is now.
struct Steering::Place {
  int fd = -1;
  Seat seat = Seat::kGone;
  core::WorkerId worker;
  bool accepted = false;  // by the manager
  std::int64_t waiting = 0;
  core::Time since{};      // with waiting: nothing was accepted since
  bool room = true;        // its scoreboard says nothing else
  bool working = false;    // its scoreboard says so
  std::uint64_t load = 0;  // connections, where it serves many at a time
};

Steering::Steering(boost::asio::io_context& context, Listeners& listeners, Doorbell& doorbell,
                   Hooks hooks)
    : listeners_(listeners), doorbell_(doorbell), hooks_(std::move(hooks)), timer_(context) {}

void Steering::steer(const std::set<std::string>& keys) {
  std::erase_if(groups_, [&](const auto& entry) { return !keys.contains(entry.first); });
  for (const std::string& key : keys) groups_.try_emplace(key);
}

void Steering::rung(const std::string& key) {
  const auto found = groups_.find(key);
  if (found == groups_.end()) return;
  found->second.awake = true;
  found->second.busy_at = now();
  look();
}

void Steering::forget(int fd) {
  for (auto& [key, group] : groups_) {
    if (group.queues.erase(fd) > 0) group.attached.clear();
  }
}

void Steering::look() {
  if (groups_.empty()) return;
  for (auto& [key, group] : groups_) group.awake = true;
  wait_ = limits::kSteerEvery;
  pass();
}

void Steering::pass() {
  const core::Time begin = now();
  changed_ = false;
  for (auto& [key, group] : groups_) {
    if (group.awake) look_at(key, group);
  }
  for (auto worker = emptying_.begin(); worker != emptying_.end();) {
    const bool over = hooks_.standing(worker->first).seat != Seat::kEmptying;
    const bool empty = begin - worker->second >= limits::kLinger;
    if (empty && !over) hooks_.emptied(worker->first);
    worker = empty || over ? emptying_.erase(worker) : std::next(worker);
  }
  wait_ = changed_ ? limits::kSteerEvery : std::min(wait_ * 2, limits::kSteerRarely);
  arm(now() - begin);
}

// Not for more than a small share of the time, whatever a look costs.
void Steering::arm(core::Duration took) {
  const bool awake =
      std::ranges::any_of(groups_, [](const auto& entry) { return entry.second.awake; });
  if (!awake || std::exchange(armed_, true)) return;
  timer_.expires_after(std::max(wait_, took * limits::kSteerShare));
  timer_.async_wait([this](const boost::system::error_code& error) {
    armed_ = false;
    if (!error) pass();
  });
}

void Steering::look_at(const std::string& key, Group& group) {
  std::vector<Place> all = places(key, group);
  select(key, group, all);
  mind_the_leaving(all, group);
  mind_the_free(key, group, all);
  rest(key, group, all);
}

void Steering::count(Group& group, int fd, bool some) {
  const std::int64_t waiting = some ? std::max<std::int64_t>(waiting_on(fd), 0) : 0;
  Queue& queue = group.queues[fd];
  if (waiting != queue.length) changed_ = true;
  if (waiting == 0 || waiting < queue.length || queue.length == 0) queue.since = now();
  queue.length = waiting;
}

std::vector<Steering::Place> Steering::places(const std::string& key, Group& group) {
  std::vector<Place> all;
  const std::vector<Member>& members = listeners_.members(key);
  // Most queues are empty, which one call tells of all.
  polled_.clear();
  for (const Member& member : members) polled_.push_back({member.fd.get(), POLLIN, 0});
  ::poll(polled_.data(), polled_.size(), 0);
  const bool accepted = hooks_.accepted(key);
  for (std::size_t i = 0; i < members.size(); ++i) {
    const Member& member = members[i];
    Place place;
    place.fd = member.fd.get();
    count(group, place.fd, polled_[i].revents != 0);
    place.waiting = group.queues[place.fd].length;
    place.since = group.queues[place.fd].since;
    place.accepted = accepted && member.owners.empty();
    for (const core::WorkerId owner : member.owners) {
      const Standing standing = hooks_.standing(owner);
      if (standing.seat > place.seat && place.worker) continue;  // the best of them counts
      place.seat = standing.seat;
      place.worker = owner;
      if (standing.board == nullptr || standing.seat != Seat::kReady) continue;
      const Figures figures = standing.board->figures(now());
      place.working = figures.active > 0;
      place.room = (figures.concurrency == 0 || figures.active < figures.concurrency) &&
                   (figures.capacity == 0 || figures.connections < figures.capacity);
      place.load = figures.concurrency == 0 ? figures.connections : 0;
    }
    all.push_back(place);
  }
  return all;
}

namespace {

template <class Places, class Fits>
std::vector<std::size_t> which(const Places& places, Fits fits) {
  std::vector<std::size_t> chosen;
  for (std::size_t i = 0; i < places.size(); ++i) {
    if (fits(places[i])) chosen.push_back(i);
  }
  return chosen;
}

}  // namespace

// The first of these that is not empty: ready and idle; ready and with the shortest queue, unless
// it stands still; one that the manager accepts from; starting; a socket that nobody has, where
// connections wait for the next worker.
void Steering::select(const std::string& key, Group& group, std::vector<Place>& places) {
  const auto ready = [](const Place& place) { return place.seat == Seat::kReady; };
  const core::Time suspect = now() - limits::kSuspect;
  std::int64_t shortest = -1;
  std::uint64_t sum = 0;
  std::uint64_t idle = 0;
  for (const Place& place : places) {
    if (!ready(place)) continue;
    const bool moves = place.waiting == 0 || place.since > suspect;
    if (moves && (shortest < 0 || place.waiting < shortest)) shortest = place.waiting;
    if (place.waiting > 0 || !place.room) continue;
    sum += place.load;
    ++idle;
  }
  auto chosen = which(places, [&](const Place& place) {
    return ready(place) && place.waiting == 0 && place.room && place.load * idle <= sum;
  });
  if (chosen.empty()) {
    chosen = which(places, [&](const Place& place) {
      return ready(place) && place.waiting == shortest &&
             (place.waiting == 0 || place.since > suspect);
    });
  }
  if (chosen.empty()) chosen = which(places, ready);
  if (chosen.empty()) {
    chosen = which(places, [](const Place& place) { return place.accepted; });
    if (chosen.size() > 1) chosen.erase(chosen.begin() + 1, chosen.end());
  }
  if (chosen.empty()) {
    chosen = which(places, [](const Place& place) { return place.seat == Seat::kStarting; });
  }
  if (chosen.empty()) {
    ListenError error;
    if (!listeners_.spare(key, error)) {
      spdlog::error("{}: {}", error.stage, std::generic_category().message(error.error));
    }
    places = this->places(key, group);
    chosen = which(places, [](const Place& place) { return !place.worker; });
    if (chosen.size() > 1) chosen.erase(chosen.begin() + 1, chosen.end());
  }
  if (chosen.empty()) chosen = which(places, [](const Place&) { return true; });
  if (chosen != group.selected) changed_ = true;
  group.selected = std::move(chosen);
  attach(key, group, {});
}

// A single socket needs no choice, unless another may join it.
void Steering::attach(const std::string& key, Group& group,
                      const std::optional<SteeredProbe>& probe) {
  const std::vector<Member>& members = listeners_.members(key);
  if (members.size() < 2 && group.attached.empty()) return;
  std::vector<sock_filter> program = selector_program(group.selected, probe);
  const auto same = [](const sock_filter& a, const sock_filter& b) {
    return std::tie(a.code, a.jt, a.jf, a.k) == std::tie(b.code, b.jt, b.jf, b.k);
  };
  if (std::ranges::equal(program, group.attached, same)) return;
  if (const int error = attach_selector(members.front().fd.get(), program); error != 0) {
    return spdlog::error("choose among the sockets of {}: {}", key,
                         std::generic_category().message(error));
  }
  group.attached = std::move(program);
}

// Also while new connections may still reach it: the handshakes that began before it was deselected
// end on its socket.
void Steering::mind_the_leaving(const std::vector<Place>& places, const Group& group) {
  const core::Time at = now();
  for (std::size_t i = 0; i < places.size(); ++i) {
    const Place& place = places[i];
    if (place.seat == Seat::kReady && place.waiting > 0 && place.since <= at - limits::kSuspect) {
      // Not at each look: its limit is far longer.
      core::Time& told = told_[place.worker];
      if (told < place.since) {
        told = at;
        hooks_.waited_for(place.worker);
      }
    }
    if (place.seat != Seat::kEmptying) continue;
    const bool selected = std::ranges::binary_search(group.selected, i);
    if (place.waiting > 0 || selected) emptying_[place.worker] = at;
    emptying_.try_emplace(place.worker, at);
  }
  std::erase_if(
      told_, [&](const auto& entry) { return hooks_.standing(entry.first).seat == Seat::kGone; });
}

void Steering::mind_the_free(const std::string& key, Group& group,
                             const std::vector<Place>& places) {
  const core::Time at = now();
  std::optional<std::size_t> useless;
  for (std::size_t i = 0; i < places.size(); ++i) {
    const Place& place = places[i];
    const bool served = place.worker || (place.accepted && place.waiting > 0);
    if (served || std::ranges::binary_search(group.selected, i)) {
      group.free_since.erase(place.fd);
      continue;
    }
    const core::Time since = group.free_since.try_emplace(place.fd, at).first->second;
    if (at - since < limits::kFreeFor) continue;
    if (place.waiting == 0) {
      useless = i;
    } else if (at - stranded_told_ >= limits::kFreeFor) {
      stranded_told_ = at;
      hooks_.stranded(key);
    }
  }
  if (!useless || places.size() < 2) return;
  const int fd = places[*useless].fd;
  group.queues.erase(fd);
  group.free_since.erase(fd);
  listeners_.drop(key, *useless);
  std::vector<Place> left = this->places(key, group);
  select(key, group, left);  // another has its index now
}

// Nothing waits and nobody works: from now on somebody who knocks wakes us.
void Steering::rest(const std::string& key, Group& group, const std::vector<Place>& places) {
  const core::Time at = now();
  const bool busy = std::ranges::any_of(places, [](const Place& place) {
    return place.waiting > 0 || place.working || place.seat == Seat::kEmptying;
  });
  const bool surplus = places.size() > 1 && std::ranges::any_of(places, [&](const Place& place) {
                         return !place.worker && place.fd != places[group.selected.front()].fd;
                       });
  if (busy) group.busy_at = at;
  if (busy || surplus || at - group.busy_at < limits::kQuiet) return;
  group.awake = false;
  for (const Member& member : listeners_.members(key)) doorbell_.arm(member.fd.get(), key);
}

std::optional<Steering::Queue> Steering::queue(core::WorkerId worker) const {
  std::optional<Queue> worst;
  for (const auto& [key, group] : groups_) {
    for (const Member& member : listeners_.members(key)) {
      if (!member.owners.contains(worker)) continue;
      const auto found = group.queues.find(member.fd.get());
      if (found == group.queues.end() || found->second.length == 0) continue;
      if (!worst || found->second.since < worst->since) worst = found->second;
    }
  }
  return worst;
}

namespace {

// Where to reach this machine's own listener: at its address or, if that is any, at the loopback's.
bool own_address(int listener, sockaddr_in6& address, socklen_t& size) {
  size = sizeof address;
  if (getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) != 0) return false;
  if (address.sin6_family == AF_INET) {
    auto* const v4 = reinterpret_cast<sockaddr_in*>(&address);
    if (v4->sin_addr.s_addr == htonl(INADDR_ANY)) v4->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    size = sizeof(sockaddr_in);
    return true;
  }
  if (IN6_IS_ADDR_UNSPECIFIED(&address.sin6_addr)) address.sin6_addr = in6addr_loopback;
  return address.sin6_family == AF_INET6;
}

// A socket with a port of its own, from which nobody else connects.
UniqueFd bound_socket(sockaddr_in6 address, socklen_t size, std::uint16_t& port) {
  UniqueFd fd(::socket(address.sin6_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  address.sin6_port = 0;  // at the same place in both families
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  if (!fd || ::bind(fd.get(), any, size) != 0) return {};
  if (getsockname(fd.get(), any, &size) != 0) return {};
  port = ntohs(address.sin6_port);
  return fd;
}

// On the machine itself the handshake takes microseconds, unless the queue is full.
int finish_connecting(int fd) {
  pollfd ready{fd, POLLOUT, 0};
  if (::poll(&ready, 1, limits::kProbeHandshake) <= 0) return ETIMEDOUT;
  int error = 0;
  socklen_t size = sizeof error;
  return getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 ? error : errno;
}

}  // namespace

UniqueFd Steering::connect(const std::string& key, core::WorkerId worker, ListenError& error) {
  const std::vector<Member>& members = listeners_.members(key);
  const auto own = std::ranges::find_if(
      members, [&](const Member& member) { return member.owners.contains(worker); });
  const auto fail = [&](const char* stage, int reason) {
    error = {stage, reason};
    return UniqueFd();
  };
  const auto group = groups_.find(key);
  if (own == members.end() || group == groups_.end()) return fail("find its socket", ENOENT);
  sockaddr_in6 address{};
  socklen_t size = 0;
  if (!own_address(own->fd.get(), address, size)) return fail("getsockname", errno);
  std::uint16_t port = 0;
  UniqueFd fd = bound_socket(address, size, port);
  if (!fd) return fail("bind", errno);
  const auto index = static_cast<std::size_t>(own - members.begin());
  if (group->second.selected.empty()) group->second.selected.push_back(index);
  attach(key, group->second, SteeredProbe{port, index});
  int reason = 0;
  if (::connect(fd.get(), reinterpret_cast<sockaddr*>(&address), size) != 0) {
    reason = errno == EINPROGRESS ? finish_connecting(fd.get()) : errno;
  }
  attach(key, group->second, {});
  if (reason != 0) return fail("connect", reason);
  return fd;
}

}  // namespace ostler::runtime
