// A worker that writes anything at all: packets on its channel and bytes over its scoreboard. The
// first byte is the length of the first packet, and so on up to a length of 0; what follows is the
// page. Whatever it is, signs are of the three kinds and figures within their bounds.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/io_context.hpp>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"
#include "runtime/worker_channel.hpp"

namespace {

using namespace ostler;

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

void check_page(const runtime::Scoreboard& scoreboard) {
  namespace limits = runtime::limits;
  const core::Time now = runtime::now();
  const runtime::Figures figures = scoreboard.figures(now);
  require(figures.requests <= limits::kMostRequests, "requests have a bound");
  require(figures.connections <= limits::kMostConnections, "connections have a bound");
  require(figures.active <= limits::kMostConnections, "what is active has a bound");
  require(figures.beat <= now, "a beat is not of the future");
  for (const runtime::InFlight& request : scoreboard.in_flight(now)) {
    require(request.since <= now, "a request has begun");
    require(!request.until || *request.until <= now + limits::kMostExtension, "time has a bound");
    require(request.thread >= 0, "a thread is one");
    require(std::none_of(request.what.begin(), request.what.end(),
                         [](char c) { return static_cast<unsigned char>(c) < 0x20; }),
            "what is shown is printable");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  boost::asio::io_context context;
  runtime::WorkerChannel::WorkerEnds ends;
  const auto channel = std::make_shared<runtime::WorkerChannel>(context, ends);
  bool broken = false;
  runtime::WorkerChannel::Hooks hooks;
  hooks.heard = [&](core::WorkerSign sign) {
    require(!broken, "nothing is heard on a channel that is closed");
    require(sign == core::WorkerSign::kSpeaks || sign == core::WorkerSign::kAwake ||
                sign == core::WorkerSign::kWorn,
            "a sign is of the channel's");
  };
  hooks.broken = [&](const std::string& reason) {
    require(!broken && !reason.empty(), "a channel breaks once, for a reason");
    broken = true;
  };
  hooks.room = [&] { require(!broken, "nothing is heard on a channel that is closed"); };
  hooks.returned = [](const std::vector<runtime::Connection>&) {
    require(false, "nothing comes back of what was not given");
  };
  hooks.not_taken = hooks.returned;
  channel->start(std::move(hooks), {"a", "b"});
  while (size > 0) {
    const std::size_t length = std::min<std::size_t>(*data++, --size);
    if (length == 0) break;
    ::send(ends.channel.get(), data, length, MSG_DONTWAIT | MSG_NOSIGNAL);
    data += length;
    size -= length;
    channel->drain();
  }
  void* const page = ::mmap(nullptr, OSTLER_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                            ends.scoreboard.get(), 0);
  require(page != MAP_FAILED, "the page can be mapped");
  std::copy_n(data, std::min<std::size_t>(size, OSTLER_SCOREBOARD_SIZE),
              static_cast<std::uint8_t*>(page));
  ::munmap(page, OSTLER_SCOREBOARD_SIZE);
  check_page(channel->scoreboard());
  channel->close();
  return 0;
}
