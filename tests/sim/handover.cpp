// ostler-sim-handover: the hand-over of connections (manager/runtime/handover.hpp) on trial.
//
// A fake kernel, fake channels and fake workers, which take, serve, close, stand still, die, drain
// and come in any order, also between two questions of one call. The checks keep books of their
// own:
//   nothing is lost        each connection is in one place, and that is where it was put
//   nothing is too much    no worker gets more than it can hold, nor more than kUntaken on its way
//   who waits is served    while a connection waits that some worker has capacity for, one is
//   handed
//                          over within 5 ms
//   who stands still       gets nothing while another has capacity
//   whose table is full    gets nothing for a while, unless it closes a connection
//   the least loaded       gets the next one, if that is the policy
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <queue>
#include <set>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "random.hpp"
#include "runtime/handover.hpp"
#include "runtime/limits.hpp"

namespace {

using ostler::core::Duration;
using ostler::core::Time;
using ostler::core::WorkerId;
using ostler::sim::Random;
using namespace ostler::runtime;
using namespace std::chrono_literals;

constexpr Duration kPromise = 5ms;
constexpr int kInVain = 35;  // in 10 ms
constexpr int kTurns = 2;    // that a listener may be passed over: as many as there are others

struct Broken {
  std::string what;
};

struct Connection {
  std::uint64_t id = 0;
  std::string listener;
};

// What differs from run to run.
struct Setting {
  HandoverPolicy policy = HandoverPolicy::kLeastConnections;
  int listeners = 1;
  bool sync = false;       // workers that do one thing at a time
  bool deaths = false;     // workers die, drain and come
  bool failures = false;   // accept fails for a while
  bool one_fails = false;  // of the first listener alone
  double stops = 0;        // how likely a worker takes its time before it takes what it was handed
  double keeps = 0;        // the share of connections that stay open for long
  double first_key = 0;    // the share of connections that come by the first listener, and more
  Duration service = 1ms;  // about how long a connection is open otherwise
  bool all_by_one = false;
  double misses = 0;        // how likely a worker has too few descriptors for what it was handed
  double races = 0;         // how likely a worker closes a connection between two questions
  double late_closes = 0;   // how likely it does so while it is being asked to say so
  int most_capacity = 300;  // of most workers
  std::size_t inbox = 4;    // batches that a channel holds before it refuses more
  int burst = 1;            // connections that come at once, at most
  Duration gap = 1ms;       // between bursts, about
};

class World final : public HandoverPort {
 public:
  World(std::uint64_t seed, std::size_t events)
      : random_(seed), handover_(static_cast<std::uint32_t>(seed)), events_(events) {
    setting_.policy = random_.pick(std::vector{
        HandoverPolicy::kLeastConnections, HandoverPolicy::kRoundRobin, HandoverPolicy::kRandom});
    setting_.listeners = random_.between(1, 3);
    setting_.sync = random_.chance(0.3);
    setting_.deaths = random_.chance(0.5);
    setting_.stops = random_.chance(0.5) ? random_.pick(std::vector{0.02, 0.3}) : 0;
    setting_.failures = random_.chance(0.3);
    setting_.misses = random_.chance(0.3) ? random_.pick(std::vector{0.02, 0.3}) : 0;
    setting_.one_fails = random_.chance(0.5);
    setting_.races = random_.pick(std::vector{0.03, 0.15});
    setting_.late_closes = random_.chance(0.5) ? 0.7 : 0;
    setting_.inbox = static_cast<std::size_t>(random_.between(1, 4));
    setting_.keeps = random_.pick(std::vector{0.1, 0.9, 1.0});
    setting_.first_key = random_.chance(0.3) ? 0.95 : 0;
    setting_.service = random_.spread(20us, 20ms);
    setting_.burst = random_.chance(0.5) ? random_.between(1, 8) : random_.between(100, 6000);
    setting_.gap = random_.between(50us, 20ms);
    if (random_.chance(0.1)) {  // one worker serves all listeners, and the others help with one
      setting_.listeners = 3;
      setting_.all_by_one = setting_.sync = true;
      setting_.keeps = 0.1;
      setting_.service = 100us;
      setting_.burst = 6000;
      setting_.first_key = 0;
    }
    if (random_.chance(0.2)) {  // few connections, few places: what is missed stays missed
      setting_.stops = 0.3;
      setting_.late_closes = 0.9;
      setting_.keeps = 1;
      setting_.burst = 1;
      setting_.gap = random_.between(3ms, 20ms);
      setting_.most_capacity = 3;
    }
    for (int i = 0; i < setting_.listeners; ++i) keys_.push_back("key" + std::to_string(i));
    if (keys_.size() > 1 && random_.chance(0.3)) closing_.insert(keys_.back());
    handover_.configure(setting_.policy, keys_, closing_);
    const int workers = random_.between(1, 5);
    for (int i = 0; i < workers; ++i) add_worker();
    in(0us, [this] { arrive(); });
    if (setting_.deaths) in(10ms, [this] { upset(); });
    if (setting_.failures) in(10ms, [this] { fail(); });
  }

  void run() {
    call([this] { handover_.hand_over(*this); });
    for (std::size_t i = 0; i < events_ && !agenda_.empty(); ++i) {
      const Entry next = agenda_.top();
      agenda_.pop();
      check_promise(next.at);
      now_ = next.at;
      next.what();
      account();
    }
  }

  // --- HandoverPort

  [[nodiscard]] Time now() const override { return now_; }

  std::vector<WorkerLoad> loads() override {
    check_choice();
    std::vector<WorkerLoad> all;
    for (auto& [id, worker] : workers_) {
      meanwhile();
      if (!worker.known || worker.closed) continue;
      all.push_back({id, &worker.listeners, worker.connections, worker.active, worker.capacity,
                     worker.concurrency, worker.requests, worker.untaken(), worker.untaken_since});
      worker.seen = all.back();
      worker.handed = 0;
    }
    return all;
  }
  [[nodiscard]] std::size_t pending() const override { return pending_.size(); }
  [[nodiscard]] const std::string& pending_listener(std::size_t index) const override {
    return pending_.at(index).listener;
  }
  void take_pending(std::size_t index, WorkerId worker) override {
    const Connection one = pending_.at(index);
    pending_.erase(pending_.begin() + static_cast<std::ptrdiff_t>(index));
    progress_[one.listener] = now_;
    set_aside(worker, one);
  }
  Accepted accept(const std::string& listener, WorkerId worker) override {
    if (fails(listener)) return Accepted::kFailed;
    std::deque<Connection>& queue = queues_[listener];
    if (queue.empty()) return Accepted::kNone;
    const Connection one = queue.front();
    queue.pop_front();
    progress_[listener] = now_;
    check_turns(listener, worker);
    set_aside(worker, one);
    return Accepted::kOne;
  }
  bool deliver(WorkerId id) override {
    Worker& worker = workers_.at(id);
    std::deque<Connection> batch = std::exchange(worker.batch, {});
    const bool refuses = worker.dead || worker.inbox.size() >= setting_.inbox;
    if (refuses) {
      worker.refused = now_;
      pending_.insert(pending_.begin(), batch.begin(), batch.end());
      return false;
    }
    if (has_full_table(worker) && !worker.closed_one)
      throw Broken{"handed to a worker whose table is full"};
    if (worker.untaken() == 0) worker.untaken_since = worker.last_took = now_;
    worker.on_their_way.insert(worker.on_their_way.end(), batch.begin(), batch.end());
    worker.inbox.push_back(batch.size());
    if (worker.untaken() > limits::kUntaken) throw Broken{"too many on their way to a worker"};
    const std::uint64_t most = worker.capacity + (worker.concurrency == 1 ? 1 : 0);
    // Between the look and now it can only have got fewer.
    if (worker.connections + worker.untaken() > most) throw Broken{"more than a worker can hold"};
    take_later(id);
    in_vain_ = 0;
    return true;
  }
  void await_connection(const std::string& listener) override {
    if (!armed_.insert(listener).second) return;
    if (!queues_[listener].empty()) ring(listener);
  }
  void await_capacity() override {
    for (auto& [id, worker] : workers_) {
      meanwhile();
      if (!worker.open.empty() && !worker.dead && random_.chance(setting_.late_closes))
        close_one(id);
      worker.wanted = true;
    }
  }
  void continue_soon() override {
    if (std::exchange(posted_, true)) return;
    if (now_ - vain_since_ > 10ms) {
      vain_since_ = now_;
      in_vain_ = 0;
    }
    if (++in_vain_ > kInVain) throw Broken{"goes on and on, and hands nothing over"};
    in(latency(), [this] {
      posted_ = false;
      call([this] { handover_.hand_over(*this); });
    });
  }
  void look_after(Duration wait) override {
    const Time when = now_ + wait;
    if (look_at_ && *look_at_ <= when) return;
    look_at_ = when;
    at(when, [this, when] {
      if (look_at_ != when) return;
      look_at_.reset();
      call([this] { handover_.look(*this); });
    });
  }

 private:
  struct Worker {
    std::vector<std::string> listeners;
    std::uint64_t capacity = 1, concurrency = 0;
    std::uint64_t connections = 0, active = 0, requests = 0;
    std::deque<Connection> on_their_way;  // the manager's copies
    std::deque<std::size_t> inbox;        // batches that it has not received
    std::deque<Connection> batch;         // in one call
    std::deque<Connection> missed;        // that it had no descriptors for, not yet said
    std::optional<Time> missed_at;        // when it last said so
    bool closed_one = false;              // since then
    std::set<std::uint64_t> open;
    Time untaken_since{};
    Time last_took{};
    Time good_again{};            // after it stood still
    std::optional<Time> refused;  // when it last did
    bool known = true;            // to the dispatcher: it is ready
    bool dead = false;
    bool closed = false;
    bool draining = false;
    bool wanted = false;
    bool taking = false;
    WorkerLoad seen;           // when last asked
    std::uint64_t handed = 0;  // since then
    [[nodiscard]] std::uint64_t untaken() const { return on_their_way.size() + missed.size(); }
  };
  struct Entry {
    Time at;
    std::uint64_t order = 0;
    std::function<void()> what;
    bool operator<(const Entry& other) const {
      return std::tie(other.at, other.order) < std::tie(at, order);
    }
  };

  void at(Time when, std::function<void()> what) {
    agenda_.push({when, ++order_, std::move(what)});
  }
  void in(Duration wait, std::function<void()> what) { at(now_ + wait, std::move(what)); }
  // How long the manager's loop is busy with other things.
  Duration latency() { return random_.between(0us, 400us); }

  // A call of the manager's, during which workers go on.
  template <class Call>
  void call(const Call& what) {
    calling_ = true;
    what();
    calling_ = false;
    check_choice();
  }
  void meanwhile() {
    if (!calling_ || !random_.chance(setting_.races)) return;
    std::vector<WorkerId> open;
    for (const auto& [id, worker] : workers_) {
      if (!worker.dead && !worker.open.empty()) open.push_back(id);
    }
    if (!open.empty()) close_one(random_.pick(open));
  }

  void add_worker() {
    const WorkerId id{++last_worker_};
    Worker& worker = workers_[id];
    for (const std::string& key : keys_) {
      const bool helps = setting_.all_by_one && workers_.size() > 1;
      const bool has = helps ? key == keys_[1] : setting_.all_by_one || random_.chance(0.8);
      if (keys_.size() == 1 || has) worker.listeners.push_back(key);
    }
    if (worker.listeners.empty()) worker.listeners.push_back(keys_.front());
    worker.concurrency = setting_.sync ? 1 : random_.chance(0.3) ? 4 : 0;
    worker.capacity =
        setting_.sync ? 1
        : setting_.most_capacity > 3 && random_.chance(0.2)
            ? 100'000
            : static_cast<std::uint64_t>(
                  random_.spread(Duration{1}, Duration{setting_.most_capacity}).count());
    call([this] { handover_.hand_over(*this); });
  }

  // Clients come, and go away again if the queue is long: the run is to come to an end.
  void arrive() {
    const int count = random_.between(1, setting_.burst);
    for (int i = 0; i < count; ++i) {
      const std::string key =
          random_.chance(setting_.first_key) ? keys_.front() : random_.pick(keys_);
      if (queues_[key].size() > 6000) continue;
      queues_[key].push_back({++last_connection_, key});
      if (armed_.contains(key)) ring(key);
    }
    in(random_.between(Duration{0}, 2 * setting_.gap), [this] { arrive(); });
  }
  void ring(const std::string& key) {
    in(latency(), [this, key] {
      if (armed_.erase(key) == 0) return;
      call([this] { handover_.hand_over(*this); });
    });
  }

  void set_aside(WorkerId id, const Connection& one) {
    Worker& worker = workers_.at(id);
    if (!worker.known) throw Broken{"handed to a worker that is not there"};
    const bool stood = stands_still(worker.seen);
    for (const auto& [other_id, other] : workers_) {
      const bool better = other.known && !other.closed && !stands_still(other.seen) &&
                          serves(other, one.listener) && capacity_left(other) > 0;
      if (stood && better) throw Broken{"handed to a worker that stands still"};
    }
    worker.batch.push_back(one);
    ++worker.handed;
    chosen_.push_back(id);
  }
  // Its worker could have had one of another listener instead.
  void check_turns(const std::string& listener, WorkerId worker) {
    passed_over_[listener] = 0;
    for (const std::string& other : workers_.at(worker).listeners) {
      if (other == listener || queues_[other].empty() || fails(other)) continue;
      if (++passed_over_[other] > kTurns) throw Broken{other + " does not get its turn"};
    }
  }
  static bool serves(const Worker& worker, const std::string& listener) {
    return std::ranges::count(worker.listeners, listener) > 0;
  }
  [[nodiscard]] bool stands_still(const WorkerLoad& seen) const {
    return seen.untaken > 0 && now_ - seen.untaken_since >= limits::kStandsStill;
  }
  [[nodiscard]] std::uint64_t capacity_left(const Worker& worker) const {
    if (worker.refused && now_ - *worker.refused <= limits::kRefused) return 0;
    if (has_full_table(worker)) return 0;
    const std::uint64_t has = worker.seen.connections + worker.seen.untaken + worker.handed;
    const std::uint64_t coming = worker.seen.untaken + worker.handed;
    const std::uint64_t free = worker.capacity > has ? worker.capacity - has : 0;
    return std::min(free, limits::kUntaken > coming ? limits::kUntaken - coming : 0);
  }
  // Of one listener and without limits of concurrency the rule is simple: none that got something
  // has more than one connection above any other that could have had it.
  void check_choice() {
    const std::vector<WorkerId> chosen = std::exchange(chosen_, {});
    if (setting_.policy != HandoverPolicy::kLeastConnections || keys_.size() > 1 || setting_.sync) {
      return;
    }
    const auto load = [](const Worker& one) {
      return one.seen.connections + one.seen.untaken + one.handed;
    };
    for (const WorkerId id : chosen) {
      const Worker& worker = workers_.at(id);
      for (const auto& [other_id, other] : workers_) {
        if (!other.known || other.closed || other.concurrency > 0 || worker.concurrency > 0)
          continue;
        if (stands_still(other.seen) || stands_still(worker.seen)) continue;
        if (capacity_left(other) > 0 && load(worker) > load(other) + 1) {
          throw Broken{"the next connection is not the least loaded worker's"};
        }
      }
    }
  }

  void take_later(WorkerId id) {
    Worker& worker = workers_.at(id);
    if (std::exchange(worker.taking, true)) return;
    Duration wait = random_.between(5us, 300us);
    if (random_.chance(setting_.stops)) wait = random_.spread(1ms, 2000ms);
    in(wait, [this, id] { take(id); });
  }
  void take(WorkerId id) {
    const auto found = workers_.find(id);
    if (found == workers_.end()) return;
    Worker& worker = found->second;
    worker.taking = false;
    if (worker.dead || worker.inbox.empty()) return;
    if (worker.concurrency == 1 && worker.connections > 0) return;  // when it is done
    if (now_ - worker.last_took >= limits::kStandsStill - kPromise) {
      worker.good_again = now_ + limits::kStandsStill + kPromise;
    }
    std::size_t count = worker.inbox.front();
    if (worker.concurrency == 1 && count > 1) {
      worker.inbox.front() = count - 1;
      count = 1;
    } else {
      worker.inbox.pop_front();
    }
    const bool misses = random_.chance(setting_.misses);
    const auto finds_room = misses ? static_cast<std::size_t>(random_.below(count)) : count;
    for (std::size_t i = 0; i < count; ++i) {
      const Connection one = worker.on_their_way.front();
      worker.on_their_way.pop_front();
      if (i >= finds_room) {
        worker.missed.push_back(one);
        continue;
      }
      ++worker.connections;
      worker.open.insert(one.id);
      const bool keeps = random_.chance(setting_.keeps);
      const Duration time =
          keeps ? random_.between(1s, 60s) : random_.spread(5us, setting_.service);
      in(time, [this, id, connection = one.id] { close(id, connection); });
    }
    worker.untaken_since = worker.last_took = now_;
    if (misses) in(latency(), [this, id] { say_missed(id); });
    if (!worker.inbox.empty()) take_later(id);
  }
  void say_missed(WorkerId id) {
    const auto found = workers_.find(id);
    if (found == workers_.end() || found->second.missed.empty()) return;
    Worker& worker = found->second;
    for (const Connection& one : std::exchange(worker.missed, {})) pending_.push_back(one);
    worker.missed_at = now_;
    worker.closed_one = false;
    call([&] {
      handover_.table_full(*this, id);
      handover_.hand_over(*this);
    });
  }
  void close_one(WorkerId id) { close(id, *workers_.at(id).open.begin()); }
  void close(WorkerId id, std::uint64_t connection) {
    const auto found = workers_.find(id);
    if (found == workers_.end() || found->second.dead) return;
    Worker& worker = found->second;
    if (worker.open.erase(connection) == 0) return;
    worker.closed_one = true;
    --worker.connections;
    ++worker.requests;
    ++finished_;
    if (!worker.inbox.empty()) take_later(id);
    if (!std::exchange(worker.wanted, false) || worker.draining) return;
    in(latency(), [this, id] {
      const auto still = workers_.find(id);
      if (still != workers_.end() && !still->second.closed) {
        call([this] { handover_.hand_over(*this); });
      }
    });
  }

  // A worker dies, drains or comes.
  void upset() {
    in(random_.spread(1ms, 500ms), [this] { upset(); });
    if (workers_.size() < 2 || random_.chance(0.4)) {
      if (workers_.size() < 8) add_worker();
      return;
    }
    auto found = workers_.begin();
    std::advance(found, static_cast<std::ptrdiff_t>(random_.below(workers_.size())));
    const WorkerId id = found->first;
    Worker& worker = found->second;
    if (worker.dead || worker.draining) return;
    if (random_.chance(0.5)) {
      worker.dead = true;
      lost_ += worker.open.size();
      in(latency(), [this, id] { bury(id); });
    } else {
      worker.draining = true;
      worker.known = false;
      call([this] { handover_.hand_over(*this); });
      in(random_.spread(1ms, 50ms), [this, id] { hand_back(id); });
    }
  }
  void bury(WorkerId id) {
    auto node = workers_.extract(id);
    for (const Connection& one : node.mapped().missed) pending_.push_back(one);
    for (const Connection& one : node.mapped().on_their_way) pending_.push_back(one);
    call([this] { handover_.hand_over(*this); });
  }
  // It returns what it has, idle, and ends.
  void hand_back(WorkerId id) {
    Worker& worker = workers_.at(id);
    for (const std::uint64_t connection : worker.open) {
      pending_.push_back({connection, worker.listeners.front()});
    }
    worker.open.clear();
    bury(id);
  }
  [[nodiscard]] bool fails(const std::string& key) const {
    return failing_ && (!setting_.one_fails || key == keys_.front());
  }
  void fail() {
    failing_ = !failing_;
    if (!failing_) recovered_ = now_;
    in(random_.spread(1ms, 300ms), [this] { fail(); });
  }

  // --- The books.

  void account() const {
    std::uint64_t here = pending_.size() + finished_ + lost_;
    for (const auto& [key, queue] : queues_) here += queue.size();
    for (const auto& [id, worker] : workers_) {
      if (!worker.batch.empty()) throw Broken{"set aside, and not delivered"};
      here += worker.untaken() + (worker.dead ? 0 : worker.open.size());
    }
    if (here != last_connection_) throw Broken{"a connection is lost, or there twice"};
  }

  [[nodiscard]] bool is_late(const Worker& worker) const {
    return now_ < worker.good_again ||
           (worker.untaken() > 0 && now_ - worker.last_took >= limits::kStandsStill - kPromise);
  }
  [[nodiscard]] bool has_full_table(const Worker& worker) const {
    return worker.missed_at && now_ - *worker.missed_at < limits::kTableFull;
  }
  [[nodiscard]] bool can_take(const Worker& worker) const {
    if (!worker.known || worker.dead || has_full_table(worker)) return false;
    return worker.connections + worker.untaken() < worker.capacity &&
           worker.untaken() < limits::kUntaken && worker.inbox.size() < setting_.inbox;
  }
  [[nodiscard]] bool served_by_any(const std::string& listener) const {
    return std::ranges::any_of(workers_, [&](const auto& entry) {
      return entry.second.known && serves(entry.second, listener);
    });
  }
  // Nothing happens until `until`: has anything waited for too long by then?
  void check_promise(Time until) {
    for (const std::string& key : keys_) {
      const bool in_queue =
          !queues_[key].empty() && !fails(key) && now_ - recovered_ >= limits::kAcceptAgain;
      const bool is_pending =
          std::ranges::find(pending_, key, &Connection::listener) != pending_.end();
      const bool any = (is_pending || closing_.contains(key)) && !served_by_any(key);
      bool by_good = false;  // one that does not stand still
      bool by_late = false;
      for (const auto& [id, worker] : workers_) {
        if (!(in_queue || is_pending) || !can_take(worker)) continue;
        if (!any && !serves(worker, key)) continue;
        (is_late(worker) ? by_late : by_good) = true;
      }
      check_wait(key, by_good, possible_since_, until, kPromise);
      // It is counted upon if no other is there, or has capacity: as soon as it goes on.
      const bool alone = std::ranges::all_of(workers_, [&](const auto& entry) {
        return !entry.second.known || is_late(entry.second);
      });
      check_wait(key, by_late && alone, late_since_, until, 2 * limits::kStandsStill + kPromise);
    }
  }

  void check_wait(const std::string& key, bool possible, std::map<std::string, Time>& since,
                  Time until, Duration most) {
    if (!possible) {
      since.erase(key);
      return;
    }
    const Time begin = std::max(since.try_emplace(key, now_).first->second, progress_[key]);
    if (until - begin > most) throw Broken{"a connection of " + key + " waits without need"};
  }

  Random random_;
  Handover handover_;
  std::size_t events_;
  Setting setting_;
  Time now_{};
  std::priority_queue<Entry> agenda_;
  std::uint64_t order_ = 0;
  std::vector<std::string> keys_;
  std::map<std::string, std::deque<Connection>> queues_;
  std::deque<Connection> pending_;
  std::map<WorkerId, Worker> workers_;
  std::set<std::string> closing_;  // of these listeners any worker gets what no other serves
  std::set<std::string> armed_;
  std::vector<WorkerId> chosen_;
  std::optional<Time> look_at_;
  std::map<std::string, Time> possible_since_;
  std::map<std::string, Time> late_since_;
  std::map<std::string, Time> progress_;
  std::map<std::string, int> passed_over_;
  Time recovered_{};
  bool posted_ = false;
  Time vain_since_{};
  int in_vain_ = 0;  // calls that were asked for, and nothing was handed over
  bool failing_ = false;
  bool calling_ = false;
  std::uint64_t last_worker_ = 0;
  std::uint64_t last_connection_ = 0;
  std::uint64_t finished_ = 0;
  std::uint64_t lost_ = 0;
};

[[noreturn]] void usage(int status) {
  std::fprintf(status == 0 ? stdout : stderr,
               "usage: ostler-sim-handover [--seed N] [--events N] [--events-per-run N]\n"
               "                           [--run N]\n"
               "--run: only the one that a fault was told of.\n"
               "The seed comes from --seed, else from OSTLER_SIM_SEED, else it is 1.\n");
  std::exit(status);
}

}  // namespace

int main(int argc, char** argv) {
  const char* const given = std::getenv("OSTLER_SIM_SEED");
  std::uint64_t seed = given != nullptr ? std::strtoull(given, nullptr, 0) : 1;
  std::size_t events = 2'000'000;
  std::size_t per_run = 1500;
  std::optional<std::uint64_t> only;
  for (int i = 1; i < argc; i += 2) {
    if (i + 1 == argc) usage(std::strcmp(argv[i], "--help") == 0 ? 0 : 2);
    const std::uint64_t value = std::strtoull(argv[i + 1], nullptr, 0);
    if (std::strcmp(argv[i], "--seed") == 0)
      seed = value;
    else if (std::strcmp(argv[i], "--run") == 0)
      only = value;
    else if (std::strcmp(argv[i], "--events") == 0)
      events = value;
    else if (std::strcmp(argv[i], "--events-per-run") == 0)
      per_run = std::max<std::size_t>(value, 1);
    else if (std::strcmp(argv[i], "--show") != 0)
      usage(2);  // as the core's simulator has it
  }
  Random seeds(seed);
  if (only) events = per_run;
  for (std::size_t done = 0; done < events; done += per_run) {
    const std::uint64_t run = only.value_or(seeds.next());
    try {
      World(run, per_run).run();
    } catch (const Broken& broken) {
      std::printf("broken: %s (seed %llu, run %llu)\n", broken.what.c_str(),
                  static_cast<unsigned long long>(seed), static_cast<unsigned long long>(run));
      return 1;
    }
  }
  std::printf("%zu events, seed %llu: every promise was kept\n", events,
              static_cast<unsigned long long>(seed));
  return 0;
}
