#include "runtime/scoreboard.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <string_view>
#include <system_error>

#include "runtime/limits.hpp"
#include "runtime/log.hpp"

namespace ostler::runtime {
namespace {

static_assert(sizeof(ostler_scoreboard) == OSTLER_SCOREBOARD_SIZE);

[[noreturn]] void fail(const char* what) {
  throw std::system_error(errno, std::generic_category(), what);
}

// Another process writes meanwhile. atomic_ref wants no const.
template <class T>
T load(const T& field) {
  return std::atomic_ref<T>(const_cast<T&>(field)).load(std::memory_order_acquire);
}

core::Time time_of(std::uint64_t nanoseconds, core::Time latest) {
  const auto most = static_cast<std::uint64_t>(latest.time_since_epoch().count());
  return core::Time(core::Duration(static_cast<core::Duration::rep>(std::min(nanoseconds, most))));
}

std::optional<core::Time> known(std::uint64_t nanoseconds, core::Time latest) {
  if (nanoseconds == 0) return std::nullopt;
  return time_of(nanoseconds, latest);
}

}  // namespace

Scoreboard::Scoreboard(UniqueFd& worker_end) {
  UniqueFd memory(::memfd_create("ostler-scoreboard", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memory) fail("memfd_create");
  if (::ftruncate(memory.get(), OSTLER_SCOREBOARD_SIZE) != 0) fail("ftruncate");
  struct {
    std::uint64_t magic = OSTLER_SCOREBOARD_MAGIC;
    std::uint32_t version = OSTLER_PROTOCOL_VERSION;
    std::uint32_t size = OSTLER_SCOREBOARD_SIZE;
  } const header;
  if (::pwrite(memory.get(), &header, sizeof header, 0) != sizeof header) fail("pwrite");
  // A worker that made it shorter would have the manager killed by SIGBUS at its next look.
  if (::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    fail("seal the scoreboard");
  }
  void* const page =
      ::mmap(nullptr, OSTLER_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (page == MAP_FAILED) fail("mmap");
  page_ = static_cast<const ostler_scoreboard*>(page);
  wanted_ = &static_cast<ostler_scoreboard*>(page)->wanted;
  worker_end = std::move(memory);
}

Scoreboard::~Scoreboard() {
  ::munmap(const_cast<ostler_scoreboard*>(page_), OSTLER_SCOREBOARD_SIZE);
}

Figures Scoreboard::figures(core::Time now) const {
  Figures figures;
  figures.worker_class = load(page_->worker_class);
  figures.awake = load(page_->awake) != 0;
  figures.beat = time_of(load(page_->beat), now);
  figures.requests = std::min(load(page_->requests), limits::kMostRequests);
  figures.connections = std::min(load(page_->connections), limits::kMostConnections);
  figures.active = std::min(load(page_->active), limits::kMostConnections);
  figures.capacity = std::min<std::uint64_t>(load(page_->capacity), limits::kMostConnections);
  figures.concurrency = std::min(load(page_->concurrency), limits::kMostConnections);
  if (figures.active > 0) figures.busy_since = known(load(page_->busy_since), now);
  return figures;
}

std::uint64_t Scoreboard::taken() const {
  return load(page_->taken);
}

std::uint64_t Scoreboard::not_taken() const {
  return load(page_->not_taken);
}

bool Scoreboard::want_room() const {
  const std::atomic_ref<std::uint64_t> wanted(*wanted_);
  const bool seen = wanted.exchange(1, std::memory_order_seq_cst) == 0;
  std::atomic_thread_fence(std::memory_order_seq_cst);
  return seen;
}

std::vector<InFlight> Scoreboard::in_flight(core::Time now) const {
  std::vector<InFlight> found;
  for (std::size_t i = 0; i < OSTLER_REQUESTS_SHOWN; ++i) {
    const std::uint64_t start = load(page_->start[i]);
    if (start == 0) continue;
    InFlight entry;
    entry.since = time_of(start, now);
    entry.progress = known(load(page_->progress[i]), now);
    entry.until = known(load(page_->until[i]), now + limits::kMostExtension);
    entry.thread = static_cast<pid_t>(load(page_->thread[i]) & 0x7fffffffU);
    std::array<char, OSTLER_REQUEST_TEXT> text{};
    for (std::size_t at = 0; at < text.size(); ++at) text[at] = load(page_->text[i][at]);
    // Another request may have taken the place meanwhile: then this one is over.
    std::atomic_thread_fence(std::memory_order_acquire);
    if (load(page_->start[i]) != start) continue;
    const std::string_view whole(text.data(), text.size());
    entry.what = printable(whole.substr(0, whole.find('\0')));
    found.push_back(std::move(entry));
  }
  std::ranges::sort(found, {}, &InFlight::since);
  return found;
}

}  // namespace ostler::runtime
