#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <boost/asio/io_context.hpp>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "runtime/clock.hpp"
#include "runtime/limits.hpp"
#include "runtime/worker_channel.hpp"
#include "tests/unit/runtime/lingering.hpp"
#include "tests/unit/runtime/sockets.hpp"

using namespace ostler;
using namespace std::chrono_literals;
using core::WorkerSign;
using runtime::UniqueFd;
using runtime::WorkerChannel;

namespace {

// A channel, and a worker's hands on its other ends.
struct Fixture {
  explicit Fixture(bool asked_back = true) {
    WorkerChannel::Hooks hooks;
    hooks.heard = [this](WorkerSign sign) { signs.push_back(sign); };
    hooks.broken = [this](const std::string& reason) { broken = reason; };
    hooks.room = [this] { ++rooms; };
    hooks.returned = [this](std::vector<runtime::Connection> connections) {
      for (auto& connection : connections) returned.push_back(std::move(connection));
    };
    hooks.not_taken = [this](std::vector<runtime::Connection> connections) {
      for (auto& connection : connections) not_taken.push_back(std::move(connection));
    };
    channel->start(std::move(hooks), {"a", "b", "c", "d"});
    if (!asked_back) return;
    ostler_message drain{};
    REQUIRE(channel->tell_to_return() == 0);
    REQUIRE(::recv(ends.channel.get(), &drain, sizeof drain, 0) == sizeof drain);
    REQUIRE(drain.type == OSTLER_DRAIN);
  }
  void say(std::uint32_t type, std::uint64_t value = 0, std::uint32_t count = 0) const {
    const ostler_message message{type, count, value};
    say_bytes(&message, sizeof message);
  }
  void say_bytes(const void* bytes, std::size_t size) const {
    REQUIRE(::send(ends.channel.get(), bytes, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size));
  }
  void run() {
    context.restart();
    context.run_for(20ms);
  }

  boost::asio::io_context context;
  WorkerChannel::WorkerEnds ends;
  std::shared_ptr<WorkerChannel> channel = std::make_shared<WorkerChannel>(context, ends);
  std::vector<WorkerSign> signs;
  std::string broken;
  int rooms = 0;
  std::vector<runtime::Connection> returned;
  std::vector<runtime::Connection> not_taken;
};

// One message with room for one descriptor, for sendmsg(2) and recvmsg(2).
struct Packet {
  Packet() {
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = control.data();
    header.msg_controllen = control.size();
  }
  Packet(const Packet&) = delete;
  Packet& operator=(const Packet&) = delete;
  void put(int descriptor) const { runtime::attach(header, descriptor); }
  UniqueFd take() {
    REQUIRE(CMSG_FIRSTHDR(&header) != nullptr);
    int descriptor = -1;
    std::memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&header)), sizeof descriptor);
    return UniqueFd(descriptor);
  }
  ostler_message message{};
  iovec part{&message, sizeof message};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
  msghdr header{};
};

// What came from a worker is closed by another thread.
template <class Condition>
bool eventually(const Condition& condition) {
  const auto deadline = std::chrono::steady_clock::now() + 10s;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    std::this_thread::yield();
  }
  return true;
}

bool is_closed(const UniqueFd& socket) {
  char byte = 0;
  return eventually([&] { return ::recv(socket.get(), &byte, 1, MSG_DONTWAIT) == 0; });
}

bool is_free(int descriptor) {
  return eventually([&] { return ::fcntl(descriptor, F_GETFD) == -1; });
}

}  // namespace

TEST_CASE("a worker's messages are told in their order") {
  Fixture with;
  CHECK_FALSE(with.channel->speaks());
  with.say(OSTLER_HELLO, OSTLER_PROTOCOL_VERSION);
  with.say(OSTLER_AWAKE);
  with.say(OSTLER_RECYCLE);
  with.channel->drain();
  CHECK(with.channel->speaks());
  CHECK(with.signs == std::vector{WorkerSign::kSpeaks, WorkerSign::kAwake, WorkerSign::kWorn});
  CHECK(with.broken.empty());
}

TEST_CASE("messages are heard without being asked for") {
  Fixture with;
  with.say(OSTLER_AWAKE);
  with.run();
  CHECK(with.signs == std::vector{WorkerSign::kAwake});
}

TEST_CASE("what is no message closes the channel and is told once") {
  Fixture with;
  SUBCASE("too short") {
    with.say_bytes("rubbish", 7);
  }
  SUBCASE("too long") {
    with.say_bytes("more than the sixteen bytes", 27);
  }
  SUBCASE("of an unknown type") {
    with.say(77);
  }
  SUBCASE("one of the manager's") {
    with.say(OSTLER_CONNECTION);
  }
  SUBCASE("of another version") {
    with.say(OSTLER_HELLO, OSTLER_PROTOCOL_VERSION + 1);
  }
  with.channel->drain();
  CHECK_FALSE(with.broken.empty());
  CHECK(with.signs.empty());
  CHECK_FALSE(with.channel->speaks());
  CHECK(is_closed(with.ends.channel));
  CHECK(with.channel->let_accept() == EPIPE);
}

TEST_CASE("a descriptor from a worker is not taken") {
  Fixture with;
  Packet packet;
  packet.message.type = OSTLER_AWAKE;
  packet.put(with.ends.scoreboard.get());
  REQUIRE(::sendmsg(with.ends.channel.get(), &packet.header, 0) > 0);
  const int next = ::dup(0);
  ::close(next);
  with.channel->drain();
  CHECK_FALSE(with.broken.empty());
  CHECK(is_free(next));  // no descriptor was kept
}

TEST_CASE("a descriptor that comes with no byte is not kept") {
  Fixture with;
  Packet packet;
  packet.part.iov_len = 0;
  packet.put(with.ends.scoreboard.get());
  REQUIRE(::sendmsg(with.ends.channel.get(), &packet.header, 0) == 0);
  const int next = ::dup(0);
  ::close(next);
  with.channel->drain();
  CHECK(is_closed(with.ends.channel));
  CHECK(is_free(next));
}

TEST_CASE("a worker that floods its channel loses it") {
  Fixture with;
  for (int i = 0; i <= runtime::limits::kMessagesPerSpan && with.broken.empty(); ++i) {
    with.say(OSTLER_AWAKE);
    with.channel->drain();
  }
  CHECK(with.broken == "more messages than a worker has reason to send");
  CHECK(with.signs.size() == runtime::limits::kMessagesPerSpan);
}

TEST_CASE("a worker that closes its end is no fault") {
  Fixture with;
  with.ends.channel.reset();
  with.run();
  CHECK(with.broken.empty());
  CHECK(with.channel->let_accept() == EPIPE);
}

TEST_CASE("a connection is handed over with its descriptor") {
  Fixture with;
  std::array<int, 2> pair{};
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair.data()) == 0);
  const UniqueFd ours(pair[0]);
  {
    const UniqueFd theirs(pair[1]);
    REQUIRE(with.channel->hand_over(theirs) == 0);
  }
  Packet packet;
  REQUIRE(::recvmsg(with.ends.channel.get(), &packet.header, 0) == sizeof packet.message);
  CHECK(packet.message.type == OSTLER_CONNECTION);
  CHECK(packet.message.count == OSTLER_PRIVATE);
  const UniqueFd received = packet.take();
  REQUIRE(::send(received.get(), "x", 1, 0) == 1);
  char byte = 0;
  CHECK(::recv(ours.get(), &byte, 1, 0) == 1);
}

TEST_CASE("a worker that does not read gets no more") {
  Fixture with;
  int error = 0;
  for (int i = 0; i < 100'000 && error == 0; ++i) error = with.channel->let_accept();
  CHECK(error == EAGAIN);
}

TEST_CASE("the scoreboard cannot be resized") {
  Fixture with;
  CHECK(::ftruncate(with.ends.scoreboard.get(), 0) == -1);
  CHECK(errno == EPERM);
  CHECK(::ftruncate(with.ends.scoreboard.get(), 8192) == -1);
  std::array<char, 16> header{};
  REQUIRE(::pread(with.ends.scoreboard.get(), header.data(), header.size(), 0) == 16);
  CHECK(std::string(header.data(), 8) == "OSTLERS1");
}

TEST_CASE("a scoreboard's figures are clamped") {
  Fixture with;
  auto* const page = static_cast<ostler_scoreboard*>(::mmap(nullptr, OSTLER_SCOREBOARD_SIZE,
                                                            PROT_READ | PROT_WRITE, MAP_SHARED,
                                                            with.ends.scoreboard.get(), 0));
  REQUIRE(page != MAP_FAILED);
  const core::Time now = runtime::now();
  const auto nanoseconds = static_cast<std::uint64_t>(now.time_since_epoch().count());

  SUBCASE("what can be is shown as it is") {
    page->worker_class = OSTLER_CLASS_THREADS;
    page->requests = 12;
    page->connections = 3;
    page->active = 2;
    page->busy_since = nanoseconds - 5'000;
    page->start[7] = nanoseconds - 1'000;
    page->start[9] = nanoseconds - 2'000;
    page->progress[9] = nanoseconds - 500;
    page->thread[9] = 4711;
    std::memcpy(page->text[9], "GET /a\x1b", 7);
    const auto figures = with.channel->scoreboard().figures(now);
    CHECK(figures.requests == 12);
    CHECK(figures.connections == 3);
    CHECK(figures.active == 2);
    CHECK(figures.busy_since == now - 5us);
    const auto requests = with.channel->scoreboard().in_flight(now);
    REQUIRE(requests.size() == 2);  // the oldest first
    CHECK(requests[0].what == "GET /a\\x1b");
    CHECK(requests[0].since == now - 2us);
    CHECK(requests[0].progress == now - 500ns);
    CHECK(requests[0].thread == 4711);
    CHECK_FALSE(requests[1].progress);
  }
  SUBCASE("what cannot be is cut") {
    std::memset(page, 0xff, OSTLER_SCOREBOARD_SIZE);
    const auto figures = with.channel->scoreboard().figures(now);
    CHECK(figures.requests == runtime::limits::kMostRequests);
    CHECK(figures.active == runtime::limits::kMostConnections);
    CHECK(figures.beat == now);
    const auto requests = with.channel->scoreboard().in_flight(now);
    CHECK(requests.size() == OSTLER_REQUESTS_SHOWN);
    CHECK(requests[0].since == now);
    CHECK(requests[0].until == now + runtime::limits::kMostExtension);
    CHECK(requests[0].thread > 0);
  }
  ::munmap(page, OSTLER_SCOREBOARD_SIZE);
}

namespace {

// Two ends of a connection, of which the manager hands one over.
struct Client {
  Client() {
    std::array<int, 2> ends{};
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends.data()) == 0);
    ours = UniqueFd(ends[0]);
    connection.fd = UniqueFd(ends[1]);
  }
  UniqueFd ours;
  runtime::Connection connection;
};

void hand_over(Fixture& with, std::vector<Client>& clients) {
  std::vector<runtime::Connection> batch;
  for (Client& client : clients) batch.push_back(std::move(client.connection));
  REQUIRE(with.channel->dispatch(batch) == 0);
  CHECK(batch.empty());
}

void take(const Fixture& with, std::uint64_t taken, std::uint64_t not_taken = 0) {
  void* const page = ::mmap(nullptr, OSTLER_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                            with.ends.scoreboard.get(), 0);
  REQUIRE(page != MAP_FAILED);
  static_cast<ostler_scoreboard*>(page)->not_taken = not_taken;
  static_cast<ostler_scoreboard*>(page)->taken = taken;
  ::munmap(page, OSTLER_SCOREBOARD_SIZE);
}

void give_back(const Fixture& with, int descriptor, std::uint32_t count = 1,
               std::uint64_t listener = 0) {
  Packet packet;
  packet.message.type = OSTLER_RETURN;
  packet.message.count = count;
  packet.message.value = listener;
  packet.put(descriptor);
  REQUIRE(::sendmsg(with.ends.channel.get(), &packet.header, 0) > 0);
  with.channel->drain();
}

// The same descriptor so many times, in one message about listener 3.
void give_back_often(const Fixture& with, int descriptor, std::uint32_t times) {
  ostler_message message{OSTLER_RETURN, times, 3};
  iovec part{&message, sizeof message};
  std::vector<char> control(CMSG_SPACE(sizeof(int) * times));
  const std::vector<int> descriptors(times, descriptor);
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  cmsghdr* const rights = CMSG_FIRSTHDR(&header);
  rights->cmsg_level = SOL_SOCKET;
  rights->cmsg_type = SCM_RIGHTS;
  rights->cmsg_len = CMSG_LEN(sizeof(int) * times);
  std::memcpy(CMSG_DATA(rights), descriptors.data(), sizeof(int) * times);
  REQUIRE(::sendmsg(with.ends.channel.get(), &header, 0) > 0);
  with.channel->drain();
}

}  // namespace

TEST_CASE("connections are kept until they are taken, and the rest can be had back") {
  Fixture with;
  std::vector<Client> clients(3);
  hand_over(with, clients);
  CHECK(with.channel->untaken() == 3);
  take(with, 1);
  CHECK(with.channel->untaken() == 2);
  CHECK(with.channel->take_back().size() == 2);
  CHECK(with.channel->untaken() == 0);
}

TEST_CASE("what a worker has no descriptors for is kept until it is known which it is") {
  Fixture with(false);
  std::vector<Client> clients(5);
  hand_over(with, clients);
  take(with, 4, 2);  // and the message that says which is on its way
  CHECK(with.channel->untaken() == 5);
  with.say(OSTLER_NOT_TAKEN, 1, 2);
  with.channel->drain();
  REQUIRE(with.not_taken.size() == 2);
  char first = '\0';
  REQUIRE(::send(clients[1].ours.get(), "1", 1, 0) == 1);
  CHECK(::recv(with.not_taken.front().fd.get(), &first, 1, MSG_DONTWAIT) == 1);
  CHECK(with.channel->untaken() == 1);
  CHECK(with.channel->take_back().size() == 1);
  CHECK(with.broken.empty());
}

TEST_CASE("what a worker had no descriptors for is not had back again when it has died") {
  Fixture with(false);
  std::vector<Client> clients(5);
  hand_over(with, clients);
  with.say(OSTLER_NOT_TAKEN, 3, 2);  // it dies before that is on its page
  with.channel->read_to_end();
  CHECK(with.not_taken.size() == 2);
  CHECK(with.channel->take_back().size() == 3);
}

TEST_CASE("not taken can only be what was handed over, and once") {
  struct Said {
    std::uint64_t before;
    std::uint32_t count;
  };
  for (const Said& each : {Said{0, 0}, Said{0, 4}, Said{2, 2}, Said{3, 1}, Said{~0ULL, 1},
                           Said{~0ULL, ~0U}, Said{0, 1}}) {
    Fixture with;
    std::vector<Client> clients(4);
    hand_over(with, clients);
    take(with, 1);
    CHECK(with.channel->untaken() == 3);
    with.say(OSTLER_NOT_TAKEN, 1, 1);
    with.channel->drain();
    REQUIRE(with.broken.empty());
    with.say(OSTLER_NOT_TAKEN, each.before + 1, each.count);
    with.channel->drain();
    CHECK(!with.broken.empty());
    CHECK(with.not_taken.size() == 1);
  }
}

TEST_CASE("a worker that says to have taken more than it was given has taken all of that") {
  Fixture with;
  std::vector<Client> clients(2);
  hand_over(with, clients);
  take(with, std::uint64_t{1} << 60U);
  CHECK(with.channel->untaken() == 0);
  take(with, 0);  // and nothing comes back
  CHECK(with.channel->take_back().empty());
}

TEST_CASE("connections that a worker gives back are taken, as many as it was given") {
  Fixture with;
  std::vector<Client> clients(2);
  hand_over(with, clients);
  take(with, 2);
  Client back;
  give_back(with, back.connection.fd.get());
  CHECK(with.returned.size() == 1);
  give_back(with, back.connection.fd.get());
  CHECK(with.returned.size() == 2);
  CHECK(with.broken.empty());
  give_back(with, back.connection.fd.get());
  CHECK(with.returned.size() == 2);
  CHECK(with.broken == "connections back that it was not given");
}

TEST_CASE("what a worker gives back must be what it says, and connections") {
  Fixture with;
  std::vector<Client> clients(3);
  hand_over(with, clients);
  Client back;
  SUBCASE("of those that it has not taken none can come back") {
    give_back(with, back.connection.fd.get());
  }
  SUBCASE("as many as it says") {
    take(with, 3);
    give_back(with, back.connection.fd.get(), 2);
  }
  SUBCASE("no file") {
    take(with, 3);
    give_back(with, with.ends.scoreboard.get());
  }
  SUBCASE("no listener") {
    take(with, 3);
    const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
    REQUIRE(::listen(listener.get(), 1) == 0);
    give_back(with, listener.get());
  }
  CHECK(with.returned.empty());
  CHECK_FALSE(with.broken.empty());
}

TEST_CASE("what cannot be handed over is left as it is") {
  Fixture with;
  with.channel->close();
  std::vector<runtime::Connection> batch;
  batch.push_back(Client().connection);
  CHECK(with.channel->dispatch(batch) == EPIPE);
  CHECK(batch.size() == 1);
  CHECK(batch.front().fd);
  CHECK(with.channel->untaken() == 0);
}

TEST_CASE("a client's connection is open until it is taken, and the first are taken first") {
  Fixture with;
  std::array<Client, 2> clients;
  for (Client& client : clients) {
    std::vector<runtime::Connection> batch;
    batch.push_back(std::move(client.connection));
    REQUIRE(with.channel->dispatch(batch) == 0);
    Packet packet;  // a worker that closes what it gets, without having said that it took it
    REQUIRE(::recvmsg(with.ends.channel.get(), &packet.header, 0) == sizeof packet.message);
    CHECK(packet.message.type == OSTLER_DISPATCH);
    packet.take().reset();
  }
  CHECK(with.channel->untaken() == 2);
  char nothing = 0;
  CHECK(::recv(clients[0].ours.get(), &nothing, 1, MSG_DONTWAIT) == -1);
  take(with, 1);
  CHECK(with.channel->untaken() == 1);
  CHECK(is_closed(clients[0].ours));
  const auto back = with.channel->take_back();
  REQUIRE(back.size() == 1);
  REQUIRE(::send(back.front().fd.get(), "x", 1, 0) == 1);
  char byte = 0;
  CHECK(::recv(clients[1].ours.get(), &byte, 1, MSG_DONTWAIT) == 1);
}

TEST_CASE("a batch comes back with its listener; a message with more is none") {
  Fixture with;
  std::vector<Client> clients(OSTLER_BATCH);
  for (Client& client : clients) client.connection.listener = "d";
  hand_over(with, clients);
  take(with, OSTLER_BATCH);
  const Client back;
  SUBCASE("a whole batch") {
    give_back_often(with, back.connection.fd.get(), OSTLER_BATCH);
    REQUIRE(with.returned.size() == OSTLER_BATCH);
    CHECK(with.returned.front().listener == "d");
    CHECK(with.broken.empty());
  }
  SUBCASE("one more") {
    const int next = ::dup(0);
    ::close(next);
    give_back_often(with, back.connection.fd.get(), OSTLER_BATCH + 1);
    CHECK(with.returned.empty());
    CHECK(with.broken == "a message of another size, or with too many descriptors");
    CHECK(is_free(next));  // no descriptor was kept
  }
}

TEST_CASE("a connection back is one that came in by that listener, and still there") {
  Fixture with;
  std::uint16_t port = 0;
  std::uint16_t other_port = 0;
  const UniqueFd listener = runtime::listen_on_loopback(port);
  const UniqueFd other = runtime::listen_on_loopback(other_port);
  UniqueFd client = runtime::connect_to_loopback(port);
  UniqueFd accepted = runtime::accept_from(listener);
  const UniqueFd same(::dup(accepted.get()));
  std::vector<runtime::Connection> batch;
  batch.emplace_back(std::move(accepted), "a");
  REQUIRE(with.channel->dispatch(batch) == 0);
  take(with, 1);
  SUBCASE("it") {
    give_back(with, same.get());
    CHECK(with.broken.empty());
    CHECK(with.returned.size() == 1);
    return;
  }
  SUBCASE("one that its client has reset") {
    const linger reset{1, 0};
    REQUIRE(::setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &reset, sizeof reset) == 0);
    client.reset();
    give_back(with, same.get());
    CHECK(with.broken.empty());
    CHECK(with.returned.empty());
    return;
  }
  SUBCASE("the client's end of one") {
    give_back(with, client.get());
  }
  SUBCASE("one that came in by another listener") {
    const UniqueFd client_of_other = runtime::connect_to_loopback(other_port);
    const UniqueFd theirs = runtime::accept_from(other);
    give_back(with, theirs.get());
  }
  SUBCASE("of a listener that it had none of") {
    give_back(with, same.get(), 1, 1);
  }
  SUBCASE("a socket that is not connected") {
    const UniqueFd none(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    give_back(with, none.get());
  }
  CHECK(with.broken == "something back that it was not given");
  CHECK(with.returned.empty());
}

TEST_CASE("a copy of a connection is closed at once, whatever linger it was given") {
  runtime::Lingering one;
  const auto begin = std::chrono::steady_clock::now();
  { const runtime::Connection closed(std::move(one.socket), "a"); }
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
}

TEST_CASE("what a worker sends is closed by another thread") {
  Fixture with;
  runtime::Lingering one;
  Packet packet;
  packet.message.type = OSTLER_AWAKE;
  packet.put(one.socket.get());
  REQUIRE(::sendmsg(with.ends.channel.get(), &packet.header, 0) > 0);
  one.socket.reset();
  const auto begin = std::chrono::steady_clock::now();
  SUBCASE("read") {
    with.channel->drain();
    CHECK(with.broken == "a message with a descriptor");
  }
  SUBCASE("not read") {
    with.channel->close();
  }
  CHECK(std::chrono::steady_clock::now() - begin < 10s);
  one.peer.reset();
  CHECK(is_closed(with.ends.channel));
}

TEST_CASE("connections back before they were asked for are none") {
  Fixture with(false);
  std::vector<Client> clients(1);
  hand_over(with, clients);
  take(with, 1);
  const Client back;
  give_back(with, back.connection.fd.get());
  CHECK(with.returned.empty());
  CHECK(with.broken == "connections back before it was asked for them");
}

TEST_CASE("connections back of a listener that the worker does not have are none") {
  Fixture with;
  std::vector<Client> clients(1);
  hand_over(with, clients);
  take(with, 1);
  const Client back;
  give_back(with, back.connection.fd.get(), 1, 4);
  CHECK(with.returned.empty());
  CHECK(with.broken == "connections back of a listener that it does not have");
}

TEST_CASE("what a worker gave back before it ended is read to the end") {
  Fixture with;
  constexpr int kMany = 10;  // what the kernel queues by default
  std::vector<Client> clients(kMany);
  hand_over(with, clients);
  take(with, kMany);
  const Client back;
  for (int i = 0; i < kMany; ++i) {
    Packet packet;
    packet.message = {OSTLER_RETURN, 1, 0};
    packet.put(back.connection.fd.get());
    REQUIRE(::sendmsg(with.ends.channel.get(), &packet.header, 0) > 0);
  }
  with.ends.channel.reset();
  with.channel->read_to_end();
  CHECK(with.returned.size() == kMany);
  CHECK_FALSE(with.channel->is_open());
}

TEST_CASE("that connections come back is no flood") {
  Fixture with;
  for (std::uint64_t i = 1; i <= runtime::limits::kMessagesPerSpan + 100; ++i) {
    std::vector<Client> clients(1);
    hand_over(with, clients);
    Packet packet;
    REQUIRE(::recvmsg(with.ends.channel.get(), &packet.header, 0) == sizeof packet.message);
    const UniqueFd received = packet.take();
    take(with, i);
    give_back(with, received.get());
    REQUIRE(with.returned.size() == 1);
    with.returned.clear();
  }
  CHECK(with.broken.empty());
}

TEST_CASE("that it has room may be asked again before the answer has come") {
  Fixture with;
  void* const page = ::mmap(nullptr, OSTLER_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                            with.ends.scoreboard.get(), 0);
  REQUIRE(page != MAP_FAILED);
  auto* const board = static_cast<ostler_scoreboard*>(page);
  for (int i = 0; i < runtime::limits::kMessagesPerSpan + 100; ++i) {
    for (int asked = 0; asked < 2; ++asked) {
      with.channel->want_room();
      board->wanted = 0;  // it has seen that
      with.say(OSTLER_ROOM);
    }
    with.channel->drain();
  }
  ::munmap(page, OSTLER_SCOREBOARD_SIZE);
  CHECK(with.broken.empty());
}

TEST_CASE("that it has room is said as often as it was asked for") {
  Fixture with;
  for (int i = 0; i < runtime::limits::kMessagesPerSpan + 100; ++i) {
    with.channel->want_room();
    with.say(OSTLER_ROOM);
    with.channel->drain();
  }
  CHECK(with.broken.empty());
  CHECK(with.rooms == runtime::limits::kMessagesPerSpan + 100);
  for (int i = 0; i <= runtime::limits::kMessagesPerSpan && with.broken.empty(); ++i) {
    with.say(OSTLER_ROOM);
    with.channel->drain();
  }
  CHECK(with.broken == "more messages than a worker has reason to send");
}
