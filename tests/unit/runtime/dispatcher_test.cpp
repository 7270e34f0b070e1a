#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/dispatcher.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <chrono>
#include <deque>
#include <filesystem>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "config/src/address.hpp"
#include "runtime/limits.hpp"

using namespace ostler;
using namespace std::chrono_literals;
using config::DispatchPolicy;
using runtime::Dispatcher;
using runtime::Listeners;
using runtime::UniqueFd;
using runtime::WorkerChannel;

namespace {

// A worker's hands on the other ends of its channel.
struct Worker {
  Worker(boost::asio::io_context& context, Dispatcher& dispatcher, core::PoolId pool,
         std::uint64_t number, std::vector<std::string> keys) {
    channel = std::make_shared<WorkerChannel>(context, ends);
    void* const memory = ::mmap(nullptr, OSTLER_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                                ends.scoreboard.get(), 0);
    REQUIRE(memory != MAP_FAILED);
    page = static_cast<ostler_scoreboard*>(memory);
    WorkerChannel::Hooks hooks;
    hooks.heard = [](core::WorkerSign) {};
    hooks.broken = [](const std::string& reason) { FAIL(reason); };
    hooks.room = [&dispatcher, pool] { dispatcher.has_room(pool); };
    hooks.returned = [](std::vector<runtime::Connection>) {};
    hooks.not_taken = [&dispatcher, pool, id = number](std::vector<runtime::Connection> some) {
      dispatcher.not_taken(pool, core::WorkerId{id}, std::move(some));
    };
    channel->start(std::move(hooks), std::move(keys));
    say(OSTLER_HELLO, OSTLER_PROTOCOL_VERSION);
    channel->drain();
  }
  ~Worker() {
    channel->close();
    ::munmap(page, OSTLER_SCOREBOARD_SIZE);
  }
  Worker(const Worker&) = delete;
  Worker& operator=(const Worker&) = delete;
  void say(std::uint32_t type, std::uint64_t value = 0) const {
    const ostler_message message{type, 0, value};
    REQUIRE(::send(ends.channel.get(), &message, sizeof message, 0) > 0);
  }
  // Has no descriptors for what has come. How many connections that were.
  std::uint64_t miss() {
    const std::uint64_t before = page->taken;
    const std::uint64_t count = take();
    page->connections -= count;
    page->not_taken += count;
    const ostler_message message{OSTLER_NOT_TAKEN, static_cast<std::uint32_t>(count), before};
    REQUIRE(::send(ends.channel.get(), &message, sizeof message, 0) > 0);
    return count;
  }
  // Takes what has come; how many connections that were. They are open from then on.
  std::uint64_t take() {
    ostler_message message{};
    std::uint64_t count = 0;
    while (::recv(ends.channel.get(), &message, sizeof message, MSG_DONTWAIT) > 0) {
      if (message.type == OSTLER_DISPATCH) count += message.count;
      if (message.type == OSTLER_DISPATCH) listener = message.value;
    }
    page->taken += count;
    page->connections += count;
    return count;
  }

  WorkerChannel::WorkerEnds ends;
  std::shared_ptr<WorkerChannel> channel;
  ostler_scoreboard* page = nullptr;
  std::uint64_t listener = 0;  // of what it took last
};

struct Fixture {
  Fixture(int count, std::uint32_t capacity, DispatchPolicy how = DispatchPolicy::kLeastConnections)
      : doorbell(context, [this](const std::string& rung) { dispatcher.rung(rung); }),
        dispatcher(context, listeners, doorbell, [this](core::WorkerId) { ++waited_for; }) {
    listeners.on_closing([this](int fd) {
      doorbell.forget(fd);
      dispatcher.forget(fd);
    });
    config::Listener listener;
    listener.address = *config::parse_address("tcp://127.0.0.1:0").address;
    key = Listeners::key("app", listener);
    runtime::ListenError error;
    REQUIRE(listeners.open(key, listener, error));
    for (int i = 0; i < count; ++i) {
      workers.emplace_back(context, dispatcher, pool, workers.size() + 1, std::vector{key});
      workers.back().page->capacity = capacity;
      workers.back().page->concurrency = capacity == 1 ? 1 : 0;
    }
    policy = how;
    serve();
  }
  void serve() {
    Dispatcher::Pool wanted;
    wanted.policy = policy;
    wanted.keys = {key};
    for (std::size_t i = 0; i < workers.size(); ++i) {
      wanted.workers.emplace(core::WorkerId{i + 1}, workers[i].channel);
    }
    dispatcher.serve({{pool, std::move(wanted)}});
  }
  void connect(int count = 1) {
    sockaddr_in address{};
    socklen_t size = sizeof address;
    REQUIRE(getsockname(listeners.fd(key), reinterpret_cast<sockaddr*>(&address), &size) == 0);
    for (int i = 0; i < count; ++i) {
      clients.emplace_back(::socket(AF_INET, SOCK_STREAM, 0));
      REQUIRE(::connect(clients.back().get(), reinterpret_cast<sockaddr*>(&address), size) == 0);
    }
  }
  void run(core::Duration time = 10ms) {
    context.restart();
    context.run_for(time);
  }
  std::vector<std::uint64_t> take() {
    std::vector<std::uint64_t> counts;
    for (Worker& worker : workers) counts.push_back(worker.take());
    return counts;
  }

  boost::asio::io_context context;
  Listeners listeners;
  runtime::Doorbell doorbell;
  Dispatcher dispatcher;
  core::PoolId pool{1};
  std::string key;
  DispatchPolicy policy = DispatchPolicy::kLeastConnections;
  std::deque<Worker> workers;
  std::vector<UniqueFd> clients;
  int waited_for = 0;
};

using Counts = std::vector<std::uint64_t>;

// The sanitizer for undefined behaviour needs descriptors of its own to look at an object.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif

}  // namespace

TEST_CASE("whoever has the fewest connections gets the next") {
  Fixture with(3, 100);
  with.workers[0].page->connections = 5;
  with.workers[1].page->connections = 2;
  with.connect(5);
  with.run();
  CHECK(with.take() == Counts{0, 2, 3});
}

TEST_CASE("round robin takes turns, whatever the load, among those that have room") {
  Fixture with(3, 100, DispatchPolicy::kRoundRobin);
  with.workers[1].page->connections = 50;
  with.connect(6);
  with.run();
  CHECK(with.take() == Counts{2, 2, 2});
  with.workers[1].page->connections = 100;
  with.connect(4);
  with.run();
  CHECK(with.take() == Counts{2, 0, 2});
}

TEST_CASE("random prefers the less loaded of two") {
  Fixture with(2, 10'000, DispatchPolicy::kRandom);
  with.workers[0].page->connections = 5000;
  with.connect(40);
  with.run();
  const Counts counts = with.take();
  CHECK(counts[0] + counts[1] == 40);
  CHECK(counts[1] > counts[0]);
}

TEST_CASE("connections that nobody has room for stay in the queue until somebody says so") {
  Fixture with(2, 1);
  with.connect(4);
  with.run();
  CHECK(with.take() == Counts{1, 1});
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 2);
  CHECK(with.workers[1].page->wanted == 1);
  with.workers[1].page->connections = 0;
  with.workers[1].page->wanted = 0;
  with.workers[1].say(OSTLER_ROOM);
  with.run();
  CHECK(with.take() == Counts{0, 1});
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 1);
}

// Whoever has the socket as well may take O_NONBLOCK back, at any moment.
TEST_CASE("from a socket that workers have had it accepts without waiting for a client") {
  Fixture with(2, 2);
  runtime::ListenError error;
  constexpr core::WorkerId kFormer{99};
  const int socket = with.listeners.share(with.key, kFormer, error);
  REQUIRE(socket >= 0);
  with.listeners.release(kFormer);
  std::atomic<bool> over = false;
  std::thread meddler([&] {
    while (!over) ::fcntl(socket, F_SETFL, 0);
  });
  with.serve();
  with.connect(3);
  std::uint64_t taken = 0;
  for (int i = 0; i < 1000 && taken < 3; ++i) {
    with.run();
    for (const std::uint64_t count : with.take()) taken += count;
  }
  CHECK(taken == 3);
  // All that come are served, however many there are, as soon as somebody has room.
  with.connect(100);
  for (int i = 0; i < 10'000 && taken < 103; ++i) {
    with.run(1ms);
    for (const std::uint64_t count : with.take()) taken += count;
    for (Worker& worker : with.workers) {
      worker.page->connections = 0;
      if (std::exchange(worker.page->wanted, 0U) != 0) worker.say(OSTLER_ROOM);
    }
  }
  CHECK(taken == 103);
  over = true;
  meddler.join();
}

TEST_CASE("whoever takes nothing is passed over, and that is told") {
  Fixture with(2, 100);
  with.connect(2);
  with.run();
  CHECK(with.workers[1].take() == 1);
  with.run(250ms);  // nothing was taken by the first
  CHECK(with.waited_for == 1);
  CHECK(with.dispatcher.waiting(core::WorkerId{1})->count == 1);
  CHECK_FALSE(with.dispatcher.waiting(core::WorkerId{2}));
  with.connect(5);
  with.run();
  CHECK(with.workers[1].take() == 5);
}

TEST_CASE("what comes back, or was left by one that is gone, goes to others before anybody new") {
  Fixture with(1, 100);
  with.connect(2);
  with.run();
  std::vector<runtime::Connection> left = with.workers[0].channel->take_back();
  CHECK(left.size() == 2);
  with.workers.pop_back();
  with.serve();
  with.dispatcher.give_to_others(with.pool, std::move(left));
  CHECK(with.dispatcher.pending(with.pool) == 2);
  with.workers.emplace_back(with.context, with.dispatcher, with.pool, with.workers.size() + 1,
                            std::vector{with.key});
  with.workers.back().page->capacity = 2;
  with.connect(3);
  with.serve();
  with.run();
  CHECK(with.take() == Counts{2});
  CHECK(with.dispatcher.pending(with.pool) == 0);
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 3);
}

TEST_CASE("what a worker has no descriptors for goes to another") {
  Fixture with(2, 10);
  with.workers[1].page->connections = 5;
  with.connect(2);
  with.run();
  CHECK(with.workers[0].miss() == 2);
  with.run();
  CHECK(with.take() == Counts{0, 2});
  with.connect(1);
  with.run();
  CHECK(with.take() == Counts{0, 1});
  with.run(150ms);
  with.connect(1);
  with.run();
  CHECK(with.take() == Counts{1, 0});
}

TEST_CASE("without another, what a worker has no descriptors for is its own after a while") {
  Fixture with(1, 10);
  with.workers[0].page->connections = 2;
  with.connect(3);
  with.run();
  CHECK(with.workers[0].miss() == 3);
  with.connect(1);
  with.run(50ms);
  CHECK(with.take() == Counts{0});
  SUBCASE("that nothing happens in") {
    with.run(100ms);
  }
  SUBCASE("that a connection's end is the end of") {
    --with.workers[0].page->connections;
    with.workers[0].say(OSTLER_ROOM);
    with.run();
  }
  CHECK(with.take() == Counts{4});
}

TEST_CASE("one who is busy with all that he can do at a time comes after those who are not") {
  Fixture with(2, 100);
  for (Worker& worker : with.workers) worker.page->concurrency = 2;
  with.workers[0].page->connections = with.workers[0].page->active = 2;
  with.workers[1].page->connections = 10;
  with.connect(2);
  with.run();
  CHECK(with.take() == Counts{0, 2});
  with.workers[1].page->active = 2;
  with.connect(3);
  with.run();
  CHECK(with.take() == Counts{3, 0});
}

TEST_CASE("no more than so many are on their way to a worker") {
  Fixture with(1, 10'000);
  constexpr auto kMost = runtime::limits::kUntaken;
  with.connect(kMost + 10);
  with.run();
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 10);
  CHECK(with.workers[0].page->wanted == 1);
  CHECK(with.take() == Counts{kMost});
  with.workers[0].say(OSTLER_ROOM);
  with.run();
  CHECK(with.take() == Counts{10});
}

TEST_CASE("connections that wait until those on their way were taken are handed over then") {
  Fixture with(2, 1000);
  with.connect(200);
  with.run();
  CHECK(with.take() == Counts{64, 64});
  with.run();  // none has closed a connection, and so none has said anything
  const Counts rest = with.take();
  CHECK(rest[0] + rest[1] == 72);
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 0);
}

TEST_CASE("more than a turn's connections are handed over in several turns") {
  Fixture with(4, 1000);
  with.connect(200);
  static_assert(200 > runtime::limits::kDispatchPerTurn);
  with.run();
  CHECK(with.take() == Counts{50, 50, 50, 50});
}

TEST_CASE("a socket that a worker accepts from is left to it") {
  Fixture with(1, 100);
  runtime::ListenError error;
  REQUIRE(with.listeners.claim(with.key, core::WorkerId{9}, {}, error) >= 0);
  with.connect(1);
  with.dispatcher.rung(with.key);
  with.run();
  CHECK(with.take() == Counts{0});
  with.listeners.release(core::WorkerId{9});
  with.serve();
  with.run();
  CHECK(with.take() == Counts{1});
}

TEST_CASE("from a pool that is gone nothing is accepted") {
  Fixture with(1, 100);
  with.dispatcher.serve({});
  with.connect(1);
  with.dispatcher.rung(with.key);
  with.run();
  CHECK(with.take() == Counts{0});
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 1);
}

TEST_CASE("a generation gets what came in by its own listeners, as it counts them") {
  Fixture with(0, 0);
  config::Listener listener;
  listener.address = *config::parse_address("tcp://127.0.0.1:0").address;
  runtime::ListenError error;
  const std::string other = Listeners::key("other", listener);
  REQUIRE(with.listeners.open(other, listener, error));
  with.workers.emplace_back(with.context, with.dispatcher, with.pool, with.workers.size() + 1,
                            std::vector{with.key});
  with.workers.emplace_back(with.context, with.dispatcher, with.pool, with.workers.size() + 1,
                            std::vector{other, with.key});
  for (Worker& worker : with.workers) worker.page->capacity = 100;
  with.workers[0].page->connections = 50;
  with.serve();
  with.connect(2);
  with.run();
  CHECK(with.take() == Counts{0, 2});
  CHECK(with.workers[1].listener == 1);
  with.workers[0].page->connections = 0;
  with.workers[1].page->connections = 50;
  with.connect(2);
  with.run();
  CHECK(with.take() == Counts{2, 0});
  CHECK(with.workers[0].listener == 0);
  SUBCASE("what nobody serves any more goes to anybody") {
    std::vector<runtime::Connection> left(1);
    left.front() = {UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), "gone"};
    with.dispatcher.give_to_others(with.pool, std::move(left));
    with.run();
    CHECK(with.take() == Counts{1, 0});
  }
  SUBCASE("what came back and only full workers serve waits, and does not hold up the rest") {
    with.workers[1].page->connections = 100;
    std::vector<runtime::Connection> left(1);
    left.front() = {UniqueFd(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)), other};
    with.dispatcher.give_to_others(with.pool, std::move(left));
    with.connect(1);
    with.context.restart();
    CHECK(with.context.run_for(50ms) < 500);  // a look each millisecond, until it is taken
    CHECK(with.take() == Counts{1, 0});
    CHECK(with.dispatcher.pending(with.pool) == 1);
    with.workers[1].page->connections = 0;
    with.workers[1].say(OSTLER_ROOM);
    with.run();
    CHECK(with.take() == Counts{0, 1});
  }
  SUBCASE("what only full workers serve stays where it is, and does not hold up the rest") {
    with.workers[1].page->connections = 100;
    Dispatcher::Pool wanted;
    wanted.keys = {other, with.key};
    wanted.workers = {{core::WorkerId{1}, with.workers[0].channel},
                      {core::WorkerId{2}, with.workers[1].channel}};
    with.dispatcher.serve({{with.pool, std::move(wanted)}});
    const std::string first = std::exchange(with.key, other);
    with.connect(1);
    with.run();
    CHECK(with.take() == Counts{0, 0});
    with.key = first;
    with.connect(1);
    with.run();  // the doorbell rings for this one alone
    CHECK(with.take() == Counts{1, 0});
  }
}

namespace {

// Other threads close what earlier tests have left, and make numbers free.
void wait_until_all_is_closed() {
  const auto threads = [] {
    const std::filesystem::directory_iterator all("/proc/self/task");
    return std::distance(begin(all), end(all));
  };
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  while (threads() > 1 && std::chrono::steady_clock::now() < deadline) std::this_thread::yield();
  REQUIRE(threads() == 1);
}

}  // namespace

TEST_CASE("without a descriptor to be had, it is tried again after a while and not all the time" *
          doctest::skip(kSanitized)) {
  wait_until_all_is_closed();
  Fixture with(1, 100);
  SUBCASE("a socket of its own") {}
  SUBCASE("a socket that a worker has had") {
    runtime::ListenError error;
    REQUIRE(with.listeners.share(with.key, core::WorkerId{99}, error) >= 0);
    with.listeners.release(core::WorkerId{99});
    with.serve();
  }
  rlimit before{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &before) == 0);
  with.connect(2);
  const UniqueFd next(::dup(0));
  const rlimit none{static_cast<rlim_t>(next.get()), before.rlim_max};
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &none) == 0);
  with.context.restart();
  const std::size_t handlers = with.context.run_for(250ms);
  CHECK(with.take() == Counts{0});
  CHECK(handlers < 20);
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &before) == 0);
  with.run(150ms);
  CHECK(with.take() == Counts{2});
}

TEST_CASE("whoever was passed over and goes on gets what waits, without a word from anybody") {
  Fixture with(2, 2);
  with.workers[0].page->connections = 1;  // two for him and one for the other at first
  with.connect(1);
  with.run();
  with.workers[0].page->connections = 2;
  with.run(150ms);  // the second takes nothing
  with.connect(1);
  with.run();
  CHECK(runtime::waiting_on(with.listeners.fd(with.key)) == 1);
  CHECK(with.workers[1].take() == 1);
  with.run(250ms);
  CHECK(with.workers[1].take() == 1);
}

// How many connections a worker of class sync gets that is busy with one, and has done so many
// requests since it was looked at last.
std::uint64_t given_after(std::uint64_t requests) {
  Fixture with(1, 1);
  with.connect(3);
  with.run(runtime::limits::kPaceSpan + 5ms);
  REQUIRE(with.take() == Counts{1});
  with.serve();  // the span is over: another begins
  with.workers[0].page->requests += requests;
  with.serve();
  with.run();
  return with.take().front();
}

TEST_CASE("only a worker that is quick gets the next connection in advance") {
  using runtime::limits::kPaceRequests;
  CHECK(given_after(kPaceRequests - 1) == 0);
  std::uint64_t given = 0;
  // Whoever runs this may be kept from running.
  for (int i = 0; i < 50 && given == 0; ++i) given = given_after(kPaceRequests);
  CHECK(given == 1);
}
