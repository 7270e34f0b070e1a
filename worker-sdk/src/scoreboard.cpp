#include "scoreboard.hpp"

#include <sys/mman.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <new>
#include <system_error>

namespace ostler {
namespace {

// What this thread is to the requests that begin in it.
enum class Role { kOther, kLoop, kHeld };
thread_local Role role = Role::kOther;
thread_local bool alone = false;  // of a thread that is held: there is no loop beside it
thread_local pid_t own_tid = 0;

pid_t this_thread() {
  if (own_tid == 0) own_tid = ::gettid();
  return own_tid;
}

std::uint64_t now() {
  timespec time{};
  ::clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<std::uint64_t>(time.tv_sec) * 1'000'000'000U +
         static_cast<std::uint64_t>(time.tv_nsec);
}

template <class T>
void store(T& field, T value, std::memory_order order = std::memory_order_relaxed) {
  std::atomic_ref<T>(field).store(value, order);
}

template <class T>
T load(T& field, std::memory_order order = std::memory_order_relaxed) {
  return std::atomic_ref<T>(field).load(order);
}

template <class T>
T add(T& field, T value) {
  return std::atomic_ref<T>(field).fetch_add(value, std::memory_order_relaxed) + value;
}

ostler_scoreboard& make_page() {
  void* const memory = ::mmap(nullptr, OSTLER_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    throw std::system_error(errno, std::generic_category(), "map a page for the scoreboard");
  }
  return *static_cast<ostler_scoreboard*>(memory);
}

// "METHOD TARGET", or the first alone, cut to `size`. Returns its length.
std::size_t join(char* into, std::size_t size, std::string_view method, std::string_view target) {
  const std::size_t first = method.copy(into, size);
  if (target.empty() || first == size) return first;
  into[first] = ' ';
  return first + 1 + target.copy(into + first + 1, size - first - 1);
}

}  // namespace

Scoreboard::Scoreboard(const Channel& channel, nanoseconds beat_every, std::uint64_t recycle_after)
    : channel_(channel),
      page_(channel.page() != nullptr ? *channel.page() : make_page()),
      beat_every_(beat_every),
      recycle_after_(recycle_after) {
  if (!channel_.connected()) return;
  timer_ = ::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
  if (timer_ < 0) throw std::system_error(errno, std::generic_category(), "create a timer");
}

Scoreboard::~Scoreboard() {
  if (timer_ >= 0) ::close(timer_);
  if (channel_.page() == nullptr) ::munmap(&page_, OSTLER_SCOREBOARD_SIZE);
}

void Scoreboard::describe(std::uint32_t worker_class, std::uint32_t capacity,
                          std::uint32_t concurrency) noexcept {
  store(page_.worker_class, worker_class);
  store(page_.capacity, capacity);
  store(page_.concurrency, std::uint64_t{concurrency});
}

void Scoreboard::watch() noexcept {
  if (timer_ < 0) return;
  asleep_ = true;
  if (load(page_.active, std::memory_order_seq_cst) > 0) wake();
}

void Scoreboard::wake() noexcept {
  if (!asleep_.exchange(false)) return;
  store(page_.beat, now());
  store(page_.awake, std::uint64_t{1}, std::memory_order_release);
  if (channel_.send(OSTLER_AWAKE)) {
    arm(beat_every_);
  } else {
    asleep_ = true;  // the next request tries again
  }
}

void Scoreboard::arm(nanoseconds interval) const noexcept {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(interval);
  const timespec time{.tv_sec = seconds.count(), .tv_nsec = (interval - seconds).count()};
  const itimerspec timer{.it_interval = time, .it_value = time};
  ::timerfd_settime(timer_, 0, &timer, nullptr);
}

void Scoreboard::tick() noexcept {
  std::uint64_t expirations = 0;
  if (timer_ < 0 || ::read(timer_, &expirations, sizeof expirations) != sizeof expirations) return;
  store(page_.beat, now());
  if (room_unsaid_.exchange(false)) offer_room();
  const std::uint64_t seen = load(page_.requests) + uncounted_.load(std::memory_order_relaxed);
  if (load(page_.active) > 0 || seen != last_seen_) {
    last_seen_ = seen;
    return;
  }
  arm(nanoseconds::zero());
  store(page_.awake, std::uint64_t{0}, std::memory_order_release);
  asleep_ = true;
  // One that began meanwhile may have found it awake.
  if (load(page_.active, std::memory_order_seq_cst) > 0) wake();
}

void Scoreboard::run_loop() noexcept {
  role = Role::kLoop;
}

void Scoreboard::hold_thread(bool without_loop) noexcept {
  role = Role::kHeld;
  alone = without_loop;
}

void Scoreboard::beat() noexcept {
  if (timer_ >= 0) store(page_.beat, now());
}

void Scoreboard::connection_opened() noexcept {
  add(page_.accepted, std::uint64_t{1});
  add(page_.connections, std::uint64_t{1});
}

// The manager sets `wanted` and then looks whether there is room after all, here room is made
// before `wanted` is looked at: with both in one order for all, one of the two sees the other's.
void Scoreboard::connection_closed() noexcept {
  std::atomic_ref(page_.connections).fetch_sub(1, std::memory_order_seq_cst);
}

std::uint64_t Scoreboard::connections() const noexcept {
  return load(page_.connections);
}

void Scoreboard::offer_room() noexcept {
  const std::atomic_ref wanted(page_.wanted);
  if (wanted.load(std::memory_order_seq_cst) == 0) return;
  if (wanted.exchange(0, std::memory_order_seq_cst) == 0) return;
  if (channel_.send(OSTLER_ROOM)) return;
  // Whoever looks next says it, and that is the next tick at the latest.
  wanted.store(1, std::memory_order_seq_cst);
  room_unsaid_ = true;
}

void Scoreboard::begin(in_flight& request, std::string_view method,
                       std::string_view target) noexcept {
  request.start_ = now();
  request.thread_ = static_cast<std::uint32_t>(this_thread());
  request.progress_ = role == Role::kHeld ? request.start_ : 0;
  // No request has been silent before it began.
  if (role == Role::kLoop) store(page_.beat, request.start_);
  const auto before = std::atomic_ref(page_.active).fetch_add(1, std::memory_order_seq_cst);
  if (before == 0) store(page_.busy_since, request.start_);
  request.entry_ = take_entry();
  if (request.entry_ >= 0) {
    fill(request, method, target);
  } else {
    overflow(request, method, target);
  }
  if (asleep_.load(std::memory_order_seq_cst)) wake();
}

void Scoreboard::end(in_flight& request) noexcept {
  if (request.overflowed_) {
    const std::lock_guard lock(mutex_);
    waiting_count_ -= waiting_.erase(request.number_);
  }
  if (request.entry_ >= 0) give_entry(request.entry_);
  count(request);
  std::atomic_ref(page_.active).fetch_sub(1, std::memory_order_release);
}

void Scoreboard::count(const in_flight& request) noexcept {
  if (request.is_private_) {
    uncounted_.fetch_add(1, std::memory_order_relaxed);
    return;
  }
  const std::uint64_t requests = add(page_.requests, std::uint64_t{1});
  if (recycle_after_ == 0 || requests < recycle_after_ || worn_.load(std::memory_order_relaxed)) {
    return;
  }
  if (!worn_.exchange(true) && !channel_.send(OSTLER_RECYCLE)) worn_ = false;
}

int Scoreboard::take_entry() noexcept {
  std::uint64_t taken = entries_.load(std::memory_order_relaxed);
  while (~taken != 0) {
    const int free = std::countr_one(taken);
    if (entries_.compare_exchange_weak(taken, taken | std::uint64_t{1} << free)) return free;
  }
  return -1;
}

void Scoreboard::give_entry(int entry) noexcept {
  store(page_.start[entry], std::uint64_t{0}, std::memory_order_release);
  entries_.fetch_and(~(std::uint64_t{1} << entry));
  if (waiting_count_.load() > 0) list_waiting();
}

void Scoreboard::list_waiting() noexcept {
  const std::lock_guard lock(mutex_);
  while (!waiting_.empty()) {
    const int entry = take_entry();
    if (entry < 0) return;
    const auto oldest = waiting_.begin();
    in_flight& request = *oldest->second;
    request.entry_ = entry;
    fill(request, request.text_, {});
    waiting_.erase(oldest);
    --waiting_count_;
  }
}

void Scoreboard::overflow(in_flight& request, std::string_view method,
                          std::string_view target) noexcept {
  try {
    request.text_.resize(std::min(method.size() + 1 + target.size(), kWholeText));
    request.text_.resize(join(request.text_.data(), request.text_.size(), method, target));
    request.overflowed_ = true;
    const std::lock_guard lock(mutex_);
    request.number_ = next_number_++;
    waiting_.emplace(request.number_, &request);
    ++waiting_count_;
  } catch (const std::bad_alloc&) {
    return;  // not listed, then
  }
  // An entry may have become free before this one was seen to wait.
  list_waiting();
}

void Scoreboard::fill(const in_flight& request, std::string_view method,
                      std::string_view target) noexcept {
  const auto i = static_cast<std::size_t>(request.entry_);
  Whole& whole = whole_[i];
  whole.size = join(whole.text.data(), whole.text.size(), method, target);

  using Word = std::uint64_t;
  std::array<Word, OSTLER_REQUEST_TEXT / sizeof(Word)> words{};
  // Others may look at the page: the path, but not the query, which may hold secrets.
  const auto path = std::string_view(whole.text.data(), whole.size).substr(0, sizeof words);
  path.substr(0, path.find('?')).copy(reinterpret_cast<char*>(words.data()), sizeof words);
  auto* const shown = reinterpret_cast<Word*>(page_.text[i]);
  for (std::size_t word = 0; word < words.size(); ++word) store(shown[word], words[word]);

  store(page_.thread[i], request.thread_);
  store(page_.progress[i], request.progress_);
  store(page_.until[i], request.until_);
  store(page_.start[i], request.start_, std::memory_order_release);
}

namespace {

// A request that overflowed can be given an entry at any time.
std::unique_lock<std::mutex> hold_if(bool needed, std::mutex& mutex) {
  return needed ? std::unique_lock(mutex) : std::unique_lock<std::mutex>();
}

}  // namespace

void Scoreboard::progress(in_flight& request) noexcept {
  const auto lock = hold_if(request.overflowed_, mutex_);
  const std::uint64_t at = now();
  if (role != Role::kHeld || alone) store(page_.beat, at);
  if (role == Role::kLoop || load(request.progress_) == 0) return;  // it holds no thread
  store(request.progress_, at);  // others may say so at the same time
  if (request.entry_ >= 0) store(page_.progress[request.entry_], at);
}

void Scoreboard::extend(in_flight& request, nanoseconds time) noexcept {
  const auto lock = hold_if(request.overflowed_, mutex_);
  request.until_ = now() + static_cast<std::uint64_t>(std::max(time, nanoseconds::zero()).count());
  if (request.entry_ >= 0) store(page_.until[request.entry_], request.until_);
}

void Scoreboard::discount(in_flight& request, nanoseconds time) noexcept {
  const auto lock = hold_if(request.overflowed_, mutex_);
  const auto wanted = static_cast<std::uint64_t>(std::max(time, nanoseconds::zero()).count());
  const std::uint64_t at = now();
  request.start_ = std::min(request.start_ + wanted, at);
  const std::uint64_t progress = load(request.progress_);
  if (progress != 0) store(request.progress_, std::min(progress + wanted, at));
  if (request.entry_ < 0) return;
  if (progress != 0) store(page_.progress[request.entry_], load(request.progress_));
  store(page_.start[request.entry_], request.start_, std::memory_order_release);
}

bool Scoreboard::show(std::size_t index, Shown& shown) const noexcept {
  shown.start = load(page_.start[index], std::memory_order_acquire);
  if (shown.start == 0) return false;
  shown.progress = load(page_.progress[index]);
  shown.until = load(page_.until[index]);
  shown.thread = static_cast<pid_t>(load(page_.thread[index]));
  shown.size = std::min(whole_[index].size, kWholeText);
  std::copy_n(whole_[index].text.begin(), shown.size, shown.text.begin());
  return true;
}

in_flight::~in_flight() {
  board_.end(*this);
}

void in_flight::progress() noexcept {
  board_.progress(*this);
}

void in_flight::extend(nanoseconds time) noexcept {
  board_.extend(*this, time);
}

void in_flight::discount(nanoseconds time) noexcept {
  board_.discount(*this, time);
}

}  // namespace ostler
