#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/notify_socket.hpp"
#include "runtime/unique_fd.hpp"

using namespace ostler;
using namespace std::chrono_literals;
using core::WorkerId;
using runtime::attribute_sender;
using runtime::Notification;
using runtime::NotifySocket;
using runtime::parse_notification;
using runtime::UniqueFd;
namespace fs = std::filesystem;

namespace {

class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "ostler-notify-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
    REQUIRE(chmod(path_.c_str(), 0711) == 0);  // other users may use what is in it
  }
  ~Scratch() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  [[nodiscard]] std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Sends one datagram; 0 or errno. For forked children too: nothing of doctest in here.
int send_to(const std::string& path, const std::string& text, const std::vector<int>& fds = {},
            pid_t forged = 0) {
  const UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  std::string copy = text;
  iovec data{copy.data(), copy.size()};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(253 * sizeof(int))> control{};
  msghdr message{};
  message.msg_name = &address;
  message.msg_namelen = sizeof address;
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  if (!fds.empty() || forged != 0) {
    const ucred credentials{forged, getuid(), getgid()};
    const std::size_t size = forged != 0 ? sizeof credentials : fds.size() * sizeof(int);
    message.msg_control = control.data();
    message.msg_controllen = CMSG_SPACE(size);
    cmsghdr* const part = CMSG_FIRSTHDR(&message);
    part->cmsg_level = SOL_SOCKET;
    part->cmsg_type = forged != 0 ? SCM_CREDENTIALS : SCM_RIGHTS;
    part->cmsg_len = CMSG_LEN(size);
    std::memcpy(CMSG_DATA(part), forged != 0 ? static_cast<const void*>(&credentials) : fds.data(),
                size);
  }
  return sendmsg(fd.get(), &message, MSG_NOSIGNAL) < 0 ? errno : 0;
}

// A child process that does one thing; its exit code is what that returns.
class Child {
 public:
  explicit Child(const std::function<int()>& run) : pid_(fork()) {
    if (pid_ == 0) _exit(run());
    REQUIRE(pid_ > 0);
  }
  ~Child() {
    if (!ended_) kill(pid_, SIGKILL);
    static_cast<void>(end());
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  int end() {
    int status = -1;
    if (!ended_) waitpid(pid_, &status, 0);
    ended_ = true;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  }

 private:
  pid_t pid_;
  bool ended_ = false;
};

struct Pipe {
  Pipe() {
    std::array<int, 2> ends{};
    REQUIRE(pipe2(ends.data(), O_CLOEXEC) == 0);
    reading = UniqueFd(ends[0]);
    writing = UniqueFd(ends[1]);
  }
  // Whether nobody has the writing end any more.
  [[nodiscard]] bool hung_up() const {
    pollfd entry{reading.get(), POLLIN, 0};
    return poll(&entry, 1, 0) == 1 && (entry.revents & POLLHUP) != 0;
  }
  UniqueFd reading;
  UniqueFd writing;
};

// A socket on which everybody is worker 7, unless said otherwise.
struct Fixture {
  explicit Fixture(NotifySocket::Attribute attribute = [](pid_t) { return WorkerId{7}; })
      : path(scratch / "notify") {
    socket.emplace(context, std::move(attribute),
                   [this](WorkerId worker, const Notification& notification) {
                     received.emplace_back(worker, notification);
                     if (on_delivery) on_delivery();
                   });
    REQUIRE(socket->open(path) == 0);
  }
  Scratch scratch;
  std::string path;
  boost::asio::io_context context;
  std::vector<std::pair<WorkerId, Notification>> received;
  std::function<void()> on_delivery;
  std::optional<NotifySocket> socket;
};

NotifySocket::Attribute only(const pid_t& worker) {
  return [&worker](pid_t sender) {
    return attribute_sender(
        sender, [&worker](pid_t pid) { return pid == worker ? WorkerId{7} : WorkerId{}; });
  };
}

}  // namespace

// --- Text ----------------------------------------------------------------------------------------

TEST_CASE("what is said is understood") {
  CHECK(parse_notification("READY=1").ready);
  CHECK(parse_notification("READY=1\n").ready);
  CHECK(parse_notification(std::string_view("READY=1\0", 8)).ready);
  CHECK(parse_notification("STOPPING=1").stopping);
  CHECK(parse_notification("WATCHDOG=1").watchdog);
  CHECK(parse_notification("WATCHDOG=trigger").trigger);
  CHECK(parse_notification("BARRIER=1").barrier);
  CHECK(parse_notification("ERRNO=2").error == 2);
  CHECK(parse_notification("EXTEND_TIMEOUT_USEC=1500000").extend == 1500ms);
  const Notification all = parse_notification("STATUS=a=b c\nREADY=1\nX_OTHER=1\n\nWATCHDOG=1");
  CHECK(all.status == "a=b c");
  CHECK(all.ready);
  CHECK(all.watchdog);
  CHECK_FALSE(all.stopping);
  CHECK(parse_notification("STATUS=").status == "");
  CHECK(parse_notification("STATUS=a\nSTATUS=b").status == "b");
}

TEST_CASE("what is malformed is left out") {
  for (const char* text : {"", "\n", "READY", "READY=", "READY=0", "READY=11", " READY=1",
                           "ready=1", "=1", "WATCHDOG=2", "STOPPING=yes", "MAINPID=1"}) {
    CAPTURE(text);
    const Notification empty = parse_notification(text);
    CHECK_FALSE(empty.ready);
    CHECK_FALSE(empty.stopping);
    CHECK_FALSE(empty.watchdog);
    CHECK_FALSE(empty.trigger);
  }
  for (const char* value : {"", "-1", "x", "2x", " 2", "4096", "99999999999999999999"}) {
    CAPTURE(value);
    CHECK_FALSE(parse_notification("ERRNO=" + std::string(value)).error);
  }
  for (const char* value : {"", "-1", "x", "1 ", "99999999999999999999"}) {
    CAPTURE(value);
    CHECK_FALSE(parse_notification("EXTEND_TIMEOUT_USEC=" + std::string(value)).extend);
  }
  CHECK(parse_notification("EXTEND_TIMEOUT_USEC=18446744073709551615").extend == 1h);
}

TEST_CASE("a status is safe to print and not too long") {
  const auto status = [](const std::string& text) {
    return parse_notification("STATUS=" + text).status.value_or("none");
  };
  CHECK(status("grüße €") == "grüße €");
  CHECK(status("\x1b[31mred\x07\x7f\t") == "\\x1b[31mred\\x07\\x7f\\x09");
  CHECK(status("a\xc2\x9b"
               "b\xc2\xa0") ==
        "a\\x9b"
        "b\xc2\xa0");
  CHECK(status("a\xff\xe2\x82") == "a\uFFFD\uFFFD\uFFFD");
  CHECK(status("\xed\xa0\x80") == "\uFFFD\uFFFD\uFFFD");
  CHECK(status(std::string("a\0b", 3)) == "a\\x00b");
  CHECK(status(std::string(4000, 'x')) == std::string(512, 'x'));
  std::string euros;
  for (int i = 0; i < 1000; ++i) euros += "€";
  CHECK(status(euros) == euros.substr(0, 510));
  CHECK(status(std::string(511, 'x') + "\x01") == std::string(511, 'x'));
}

// --- The socket ----------------------------------------------------------------------------------

TEST_CASE("datagrams are delivered as they come") {
  Fixture fixture;
  fixture.on_delivery = [&] {
    if (fixture.received.size() == 2) fixture.context.stop();
  };
  const Child sender(
      [&] { return send_to(fixture.path, "STATUS=loading") + send_to(fixture.path, "READY=1"); });
  fixture.context.run_for(20s);
  REQUIRE(fixture.received.size() == 2);
  CHECK(fixture.received[0].first == WorkerId{7});
  CHECK(fixture.received[0].second.status == "loading");
  CHECK(fixture.received[1].second.ready);
  CHECK(fixture.socket->rejected() == 0);
}

TEST_CASE("what waits can be asked for, and then nothing is left to do") {
  Fixture fixture;
  REQUIRE(send_to(fixture.path, "READY=1") == 0);
  REQUIRE(send_to(fixture.path, "STOPPING=1") == 0);
  fixture.socket->drain();
  CHECK(fixture.received.size() == 2);
  fixture.context.poll();
  CHECK(fixture.received.size() == 2);
  fixture.context.restart();
  CHECK(fixture.context.poll() == 0);
}

TEST_CASE("a flood is delivered whole, and others get their turn") {
  constexpr std::size_t kCount = 3000;
  Fixture fixture;
  std::size_t turns = 0;
  std::function<void()> other = [&] {
    ++turns;
    if (fixture.received.size() < kCount) boost::asio::post(fixture.context, other);
  };
  boost::asio::post(fixture.context, other);
  fixture.on_delivery = [&] {
    if (fixture.received.size() == kCount) fixture.context.stop();
  };
  Child sender([&] {
    for (std::size_t i = 0; i < kCount; ++i) {
      if (send_to(fixture.path, "WATCHDOG=1") != 0) return 1;
    }
    return 0;
  });
  fixture.context.run_for(60s);
  CHECK(fixture.received.size() == kCount);
  CHECK(turns > kCount / 256);
  CHECK(sender.end() == 0);
}

TEST_CASE("what is too long is refused, and what is empty ignored") {
  Fixture fixture;
  REQUIRE(send_to(fixture.path, "READY=1\n" + std::string(4088, 'x')) == 0);
  REQUIRE(send_to(fixture.path, "READY=1\n" + std::string(4089, 'x')) == 0);
  REQUIRE(send_to(fixture.path, "") == 0);
  REQUIRE(send_to(fixture.path, "STOPPING=1") == 0);
  fixture.socket->drain();
  REQUIRE(fixture.received.size() == 2);
  CHECK(fixture.received[0].second.ready);
  CHECK(fixture.received[1].second.stopping);
  CHECK(fixture.socket->rejected() == 1);
}

TEST_CASE("descriptors that come along are closed") {
  bool known = true;
  Fixture fixture([&](pid_t) { return known ? WorkerId{7} : WorkerId{}; });
  Pipe pipe;
  const auto send = [&](const std::string& text, std::size_t count) {
    pipe = Pipe();
    REQUIRE(send_to(fixture.path, text, std::vector<int>(count, pipe.writing.get())) == 0);
    pipe.writing.reset();
    REQUIRE_FALSE(pipe.hung_up());
    fixture.socket->drain();
  };
  SUBCASE("one") {
    send("READY=1", 1);
  }
  SUBCASE("as many as the kernel takes") {
    send("FDSTORE=1", 253);
  }
  SUBCASE("with an empty datagram") {
    send("", 1);
  }
  SUBCASE("with one that is too long") {
    send(std::string(5000, 'x'), 3);
  }
  SUBCASE("a stranger's") {
    known = false;
    send("READY=1", 1);
  }
  CHECK(pipe.hung_up());
}

TEST_CASE("a barrier falls after what was said before it") {
  Fixture fixture;
  Pipe pipe;
  REQUIRE(send_to(fixture.path, "READY=1") == 0);
  REQUIRE(send_to(fixture.path, "BARRIER=1", {pipe.writing.get()}) == 0);
  pipe.writing.reset();
  bool open = false;
  fixture.on_delivery = [&] { open = !pipe.hung_up(); };
  fixture.socket->drain();
  REQUIRE(fixture.received.size() == 2);
  CHECK(open);
  CHECK(fixture.received[1].second.barrier);
  CHECK(pipe.hung_up());
}

TEST_CASE("the path is open to every user, whatever the umask, and goes with the socket") {
  const mode_t before = umask(077);
  Fixture fixture;
  umask(before);
  struct stat status {};
  REQUIRE(lstat(fixture.path.c_str(), &status) == 0);
  CHECK((status.st_mode & 07777) == 0666);
  CHECK(fixture.socket->path() == fixture.path);
  fixture.socket.reset();
  CHECK_FALSE(fs::exists(fixture.path));
}

TEST_CASE("a stale path is replaced, a living one is not") {
  Fixture fixture;
  const std::string copy = fixture.scratch / "stale";
  {
    const UniqueFd left(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, copy.c_str(), sizeof address.sun_path - 1);
    REQUIRE(bind(left.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  }
  const auto none = [](pid_t) { return WorkerId{}; };
  NotifySocket second(fixture.context, none, {});
  CHECK(second.open(fixture.path) == EADDRINUSE);
  CHECK(second.open(fixture.scratch / "none/notify") == ENOENT);
  CHECK(second.open(fixture.scratch / std::string(200, 'x')) == ENAMETOOLONG);
  second.drain();
  CHECK(second.open(copy) == 0);
  REQUIRE(send_to(copy, "READY=1") == 0);
  second.drain();
  CHECK(second.rejected() == 1);
  REQUIRE(send_to(fixture.path, "READY=1") == 0);
  fixture.socket->drain();
  CHECK(fixture.received.size() == 1);
}

TEST_CASE("handlers that come after the end do nothing") {
  // Whenever it ends: before the datagram was seen, after, or when its handler is on the way.
  for (int turns = 0; turns < 8; ++turns) {
    Fixture fixture;
    REQUIRE(send_to(fixture.path, "READY=1") == 0);
    int left = turns;
    std::function<void()> end_later = [&] {
      if (left-- == 0) return fixture.socket.reset();
      boost::asio::post(fixture.context, end_later);
    };
    boost::asio::post(fixture.context, end_later);
    fixture.context.run_for(20s);
    CHECK(fixture.received.size() <= 1);
  }
}

// --- Who it is -----------------------------------------------------------------------------------

TEST_CASE("a worker is known by its pid, and a stranger is refused and counted") {
  pid_t worker = 0;
  Fixture fixture(only(worker));
  Pipe go;
  const auto run = [&] {
    char byte = 0;
    if (read(go.reading.get(), &byte, 1) != 1) return 1;
    const int error = send_to(fixture.path, "READY=1");
    // Waits for its end, so that it is there to be looked at.
    return error != 0 ? error : static_cast<int>(read(go.reading.get(), &byte, 1)) - 1;
  };
  fixture.on_delivery = [&] { fixture.context.stop(); };
  Child child(run);
  const Child sibling([] { return pause(); });
  SUBCASE("the worker") {
    worker = child.pid();
  }
  SUBCASE("a stranger") {
    worker = sibling.pid();
  }
  REQUIRE(write(go.writing.get(), "1", 1) == 1);
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (fixture.received.empty() && fixture.socket->rejected() == 0 &&
         std::chrono::steady_clock::now() < deadline) {
    fixture.context.run_one_for(100ms);
  }
  CHECK(fixture.received.size() == (worker == child.pid() ? 1 : 0));
  CHECK(fixture.socket->rejected() == (worker == child.pid() ? 0 : 1));
  REQUIRE(write(go.writing.get(), "1", 1) == 1);
  CHECK(child.end() == 0);
}

TEST_CASE("a worker's descendants speak for it") {
  pid_t worker = 0;
  Fixture fixture(only(worker));
  // Alive until told: the descendant's pid, then the end.
  Pipe pids;
  Pipe end;
  const auto wait_for_end = [&] {
    char byte = 0;
    return static_cast<int>(read(end.reading.get(), &byte, 1));
  };
  const auto speak = [&] {
    if (send_to(fixture.path, "READY=1") != 0) _exit(1);
    const pid_t self = getpid();
    if (write(pids.writing.get(), &self, sizeof self) != sizeof self) _exit(1);
    end.writing.reset();
    _exit(wait_for_end());
  };
  std::optional<Child> child;
  SUBCASE("a grandchild") {
    child.emplace([&] {
      end.writing.reset();
      const pid_t first = fork();
      if (first == 0) {
        const pid_t second = fork();
        if (second == 0) speak();
        return waitpid(second, nullptr, 0) == second ? 0 : 1;
      }
      return waitpid(first, nullptr, 0) == first ? 0 : 1;
    });
  }
  SUBCASE("one that its parent left behind, by the session") {
    child.emplace([&] {
      setsid();
      end.writing.reset();
      Pipe gone;
      const pid_t first = fork();
      if (first == 0) {
        const pid_t second = fork();
        if (second != 0) _exit(0);
        char byte = 0;
        gone.writing.reset();
        if (read(gone.reading.get(), &byte, 1) != 0) _exit(1);  // until the parent was reaped
        speak();
      }
      if (waitpid(first, nullptr, 0) != first) return 1;
      gone.writing.reset();
      return wait_for_end();
    });
  }
  worker = child->pid();
  pid_t sender = 0;
  pollfd said{pids.reading.get(), POLLIN, 0};
  REQUIRE(poll(&said, 1, 20000) == 1);
  REQUIRE(read(pids.reading.get(), &sender, sizeof sender) == sizeof sender);
  CHECK(sender != worker);
  fixture.socket->drain();
  CHECK(fixture.received.size() == 1);
  CHECK(fixture.socket->rejected() == 0);
  end.writing.reset();
  CHECK(child->end() == 0);
}

TEST_CASE("nobody can lie about who they are") {
  Fixture fixture;
  Child liar([&] {
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) return 1;
    if (send_to(fixture.path, "READY=1", {}, getppid()) != EPERM) return 2;
    return send_to(fixture.path, "STOPPING=1");  // the truth, as any user may tell it
  });
  CHECK(liar.end() == 0);
  fixture.socket->drain();
  REQUIRE(fixture.received.size() == 1);
  CHECK(fixture.received[0].second.stopping);
}

TEST_CASE("the manager and what is none of its own are no workers") {
  const auto anybody = [](pid_t) { return WorkerId{7}; };
  CHECK_FALSE(attribute_sender(0, anybody));
  CHECK_FALSE(attribute_sender(-5, anybody));
  CHECK_FALSE(attribute_sender(1, anybody));
  const auto nobody = [](pid_t) { return WorkerId{}; };
  CHECK_FALSE(attribute_sender(getpid(), nobody));
  CHECK_FALSE(attribute_sender(getppid(), nobody));
}
