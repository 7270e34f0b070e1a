#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
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
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/notify_sockets.hpp"
#include "runtime/unique_fd.hpp"

using namespace ostler;
using namespace std::chrono_literals;
using core::WorkerId;
using runtime::Notification;
using runtime::NotifyOwner;
using runtime::NotifySockets;
using runtime::RemovalWatch;
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

// The sockets of worker 7, of this test's user, and of others, in a folder of their own. Who is a
// worker is in `pids`; at first, this process is worker 7.
struct Fixture {
  explicit Fixture(const NotifyOwner& owner = {getuid(), getgid()}) {
    NotifySockets::Hooks hooks;
    hooks.worker_of = [this](pid_t pid) {
      const auto found = pids.find(pid);
      return found == pids.end() ? WorkerId{} : found->second;
    };
    hooks.name_of = [](WorkerId worker) { return "web." + std::to_string(worker.value); };
    hooks.deliver = [this](WorkerId worker, const Notification& notification) {
      received.emplace_back(worker, notification);
      if (on_delivery) on_delivery();
    };
    sockets.emplace(context, removals, std::move(hooks));
    REQUIRE(sockets->open_folder(scratch / "c.sock") == "");
    path = sockets->open(WorkerId{7}, owner);
    belongs_to(getpid());
  }
  void belongs_to(pid_t pid) {
    pids = {{pid, WorkerId{7}}};
    sockets->started(WorkerId{7}, pid);
  }
  void drain() { sockets->drain(WorkerId{7}); }
  [[nodiscard]] std::string refused() const { return sockets->what_was_refused(WorkerId{7}); }
  Scratch scratch;
  std::string path;
  std::map<pid_t, WorkerId> pids;
  boost::asio::io_context context;
  int removed = 0;
  RemovalWatch removals{context, [this] { ++removed; }};
  std::vector<std::pair<WorkerId, Notification>> received;
  std::function<void()> on_delivery;
  std::optional<NotifySockets> sockets;
};

bool eventually(const std::function<bool()>& holds) {
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (!holds()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    poll(nullptr, 0, 1);
  }
  return true;
}

}  // namespace

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
  CHECK(fixture.sockets->rejected() == 0);
}

TEST_CASE("what waits can be asked for, and then nothing is left to do") {
  Fixture fixture;
  REQUIRE(send_to(fixture.path, "READY=1") == 0);
  REQUIRE(send_to(fixture.path, "STOPPING=1") == 0);
  fixture.drain();
  CHECK(fixture.received.size() == 2);
  fixture.context.poll();
  CHECK(fixture.received.size() == 2);
  fixture.context.restart();
  CHECK(fixture.context.poll() == 0);
}

TEST_CASE("a flood is delivered whole, and neither the loop nor another worker waits for it") {
  constexpr std::size_t kCount = 1000;
  Fixture fixture;
  const std::string other = fixture.sockets->open(WorkerId{8}, {getuid(), getgid()});
  Child sender([&] {
    for (std::size_t i = 0; i < kCount; ++i) {
      if (send_to(fixture.path, "WATCHDOG=1") != 0) return 1;
    }
    return 0;
  });
  // What the flooding worker's socket had delivered when the other, told of later, was heard.
  fixture.pids = {{sender.pid(), WorkerId{7}}};
  fixture.sockets->started(WorkerId{8}, getpid());
  std::size_t turns = 0;
  std::size_t flooded = 0;
  std::size_t before = kCount;
  std::size_t after = kCount;
  std::function<void()> turn = [&] {
    ++turns;
    if (flooded < kCount) boost::asio::post(fixture.context, turn);
  };
  boost::asio::post(fixture.context, turn);
  fixture.on_delivery = [&] {
    const bool is_other = fixture.received.back().first == WorkerId{8};
    if (is_other) after = flooded;
    if (!is_other && ++flooded == kCount / 2) {
      before = flooded;
      static_cast<void>(send_to(other, "WATCHDOG=1"));
    }
    if (flooded == kCount) fixture.context.stop();
  };
  fixture.context.run_for(60s);
  CHECK(flooded == kCount);
  CHECK(turns > 5);
  CHECK(after < before + 600);  // at most what was read in a few milliseconds
  CHECK(sender.end() == 0);
}

TEST_CASE("what is too long is refused, and what is empty ignored") {
  Fixture fixture;
  REQUIRE(send_to(fixture.path, "READY=1\n" + std::string(4088, 'x')) == 0);
  REQUIRE(send_to(fixture.path, "READY=1\n" + std::string(4089, 'x')) == 0);
  REQUIRE(send_to(fixture.path, "") == 0);
  REQUIRE(send_to(fixture.path, "STOPPING=1") == 0);
  fixture.drain();
  REQUIRE(fixture.received.size() == 2);
  CHECK(fixture.received[0].second.ready);
  CHECK(fixture.received[1].second.stopping);
  CHECK(fixture.sockets->rejected() == 1);
}

TEST_CASE("descriptors that come along are closed") {
  Fixture fixture;
  Pipe pipe;
  const auto send = [&](const std::string& text, std::size_t count) {
    pipe = Pipe();
    REQUIRE(send_to(fixture.path, text, std::vector<int>(count, pipe.writing.get())) == 0);
    pipe.writing.reset();
    REQUIRE_FALSE(pipe.hung_up());
    fixture.drain();
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
    fixture.belongs_to(1);
    send("READY=1", 1);
    CHECK(fixture.sockets->rejected() == 1);
  }
  SUBCASE("in a queue that is not read any more") {
    pipe = Pipe();
    REQUIRE(send_to(fixture.path, "READY=1", {pipe.writing.get()}) == 0);
    pipe.writing.reset();
    fixture.sockets->close(WorkerId{7});
  }
  CHECK(eventually([&] { return pipe.hung_up(); }));
}

TEST_CASE("a barrier falls after what was said before it") {
  Fixture fixture;
  Pipe pipe;
  REQUIRE(send_to(fixture.path, "READY=1") == 0);
  REQUIRE(send_to(fixture.path, "BARRIER=1", {pipe.writing.get()}) == 0);
  pipe.writing.reset();
  bool open = false;
  fixture.on_delivery = [&] { open = !pipe.hung_up(); };
  fixture.drain();
  REQUIRE(fixture.received.size() == 2);
  CHECK(open);
  CHECK(fixture.received[1].second.barrier);
  CHECK(eventually([&] { return pipe.hung_up(); }));
}

// A connection with SO_LINGER whose peer does not read: close(2) waits for it.
TEST_CASE("a descriptor that does not close holds up nobody") {
  Fixture fixture;
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* const any = reinterpret_cast<sockaddr*>(&address);
  REQUIRE(bind(listener.get(), any, size) == 0);
  REQUIRE(listen(listener.get(), 1) == 0);
  REQUIRE(getsockname(listener.get(), any, &size) == 0);
  UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const linger wait{1, 5};
  REQUIRE(setsockopt(client.get(), SOL_SOCKET, SO_LINGER, &wait, sizeof wait) == 0);
  connect(client.get(), any, size);
  const UniqueFd peer(accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(peer);
  const std::string much(1 << 16, 'x');
  while (write(client.get(), much.data(), much.size()) > 0) {
  }
  REQUIRE(fcntl(client.get(), F_SETFL, 0) == 0);
  REQUIRE(send_to(fixture.path, "READY=1", {client.get()}) == 0);
  REQUIRE(send_to(fixture.path, "STOPPING=1", {client.get()}) == 0);
  client.reset();
  const auto begin = std::chrono::steady_clock::now();
  fixture.drain();
  fixture.sockets->close(WorkerId{7});
  CHECK(std::chrono::steady_clock::now() - begin < 2s);
  CHECK(fixture.received.size() == 2);
}

// --- The folder ----------------------------------------------------------------------------------

namespace {

struct stat status_of(const std::string& path) {
  struct stat status {};
  REQUIRE(lstat(path.c_str(), &status) == 0);
  return status;
}

mode_t mode_of(const std::string& path) {
  return status_of(path).st_mode & 07777;
}

}  // namespace

TEST_CASE("a worker's socket lies in a folder that only its user may enter, and goes with it") {
  Fixture fixture;
  const std::string all = fixture.scratch / "c.sock.notify";
  const std::string own = fs::path(fixture.path).parent_path();
  CHECK(fs::path(own).parent_path() == all);
  CHECK(mode_of(own) == 0700);
  CHECK(status_of(own).st_uid == getuid());
  CHECK(mode_of(fixture.path) == 0600);
  CHECK(mode_of(all) == (geteuid() == 0 ? 0711 : 0700));
  const std::string second = fixture.sockets->open(WorkerId{8}, {getuid(), getgid()});
  CHECK(fs::path(second).parent_path() != own);
  fixture.sockets->close(WorkerId{7});
  CHECK_FALSE(fs::exists(own));
  CHECK(fs::exists(second));
  fixture.sockets.reset();
  CHECK_FALSE(fs::exists(all));
}

TEST_CASE("the folder of a worker with another user is that user's" *
          doctest::skip(geteuid() != 0)) {
  Fixture fixture({65534, 65533});
  const std::string own = fs::path(fixture.path).parent_path();
  CHECK(mode_of(own) == 0700);
  CHECK(status_of(own).st_uid == 65534);
  CHECK(status_of(fixture.path).st_uid == 65534);
  const auto send_as = [&](uid_t uid) {
    return Child([&] {
             if (setresgid(uid, uid, uid) != 0 || setresuid(uid, uid, uid) != 0) return 1;
             return send_to(fixture.path, "READY=1");
           })
        .end();
  };
  CHECK(send_as(65534) == 0);
  CHECK(send_as(1) == EACCES);
}

TEST_CASE("a worker that runs as root may switch its user: then everybody reaches the socket") {
  Fixture fixture({getuid(), getgid(), true});
  CHECK(mode_of(fs::path(fixture.path).parent_path()) == 0711);
  CHECK(mode_of(fixture.path) == 0666);
}

TEST_CASE("what a manager that was killed left is cleaned up") {
  Fixture fixture;
  const std::string all = fixture.scratch / "d.sock.notify";
  fs::create_directories(all + "/7/in/deep");
  fs::create_directories(all + "/8");
  fs::create_directories(all + "/9");
  for (const char* file : {"/7/s", "/8/s", "/8/t", "/stray"}) {
    REQUIRE(UniqueFd(open((all + file).c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)));
  }
  fs::create_symlink(fixture.path, all + "/9/s");
  fs::create_directory_symlink(fs::path(fixture.path).parent_path(), all + "/10");
  std::optional<NotifySockets> second;
  second.emplace(fixture.context, fixture.removals, NotifySockets::Hooks{});
  REQUIRE(second->open_folder(fixture.scratch / "d.sock") == "");
  CHECK_FALSE(fs::exists(all + "/8"));
  CHECK_FALSE(fs::exists(all + "/9"));
  CHECK_FALSE(fs::exists(fs::symlink_status(all + "/10")));
  CHECK(fs::exists(fixture.path));  // nothing was followed
  // What cannot be removed is in nobody's way.
  CHECK(second->open(WorkerId{7}, {getuid(), getgid()}) == all + "/7/s");
  CHECK(send_to(all + "/7/s", "READY=1") == 0);
}

TEST_CASE("the folder of a living manager is left alone") {
  Fixture fixture;
  NotifySockets second(fixture.context, fixture.removals, {});
  CHECK(second.open_folder(fixture.scratch / "c.sock") ==
        "the folder " + (fixture.scratch / "c.sock.notify") +
            " is in use by another living manager");
  CHECK(fs::exists(fixture.path));
}

TEST_CASE("a folder that cannot be had is said") {
  Fixture fixture;
  NotifySockets second(fixture.context, fixture.removals, {});
  const std::string place = fixture.scratch / "none/c.sock";
  CHECK(second.open_folder(place) == "mkdir " + place + ".notify: No such file or directory");
  const std::string far = fixture.scratch / std::string(80, 'x');
  CHECK(second.open_folder(far).find("no room for the workers' notify sockets") !=
        std::string::npos);
  const std::string linked = fixture.scratch / "l.sock";
  fs::create_directory_symlink(fixture.scratch / ".", linked + ".notify");
  CHECK(second.open_folder(linked) == "open the folder " + linked + ".notify: Not a directory");
}

TEST_CASE("sockets that were removed are made again at the same path") {
  Fixture fixture;
  const UniqueFd connected(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, fixture.path.c_str(), sizeof address.sun_path - 1);
  REQUIRE(connect(connected.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  CHECK_FALSE(fixture.sockets->restore());
  SUBCASE("the socket") {
    REQUIRE(fs::remove(fixture.path));
  }
  SUBCASE("its folder") {
    fs::remove_all(fs::path(fixture.path).parent_path());
  }
  SUBCASE("the folder of all") {
    fs::remove_all(fixture.scratch / "c.sock.notify");
  }
  SUBCASE("another file in its place") {
    REQUIRE(fs::remove(fixture.path));
    REQUIRE(UniqueFd(open(fixture.path.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600)));
  }
  const auto deadline = std::chrono::steady_clock::now() + 20s;
  while (fixture.removed == 0 && std::chrono::steady_clock::now() < deadline) {
    fixture.context.run_one_for(100ms);
  }
  CHECK(fixture.removed == 1);  // it is noticed
  CHECK(fixture.sockets->restore());
  CHECK_FALSE(fixture.sockets->restore());
  REQUIRE(send_to(fixture.path, "READY=1") == 0);
  REQUIRE(send(connected.get(), "STOPPING=1", 10, 0) == 10);  // who is connected is still heard
  fixture.drain();
  CHECK(fixture.received.size() == 2);
}

TEST_CASE("handlers that come after the end do nothing") {
  // Whenever it ends: before the datagram was seen, after, or when its handler is on the way.
  for (int turns = 0; turns < 8; ++turns) {
    Fixture fixture;
    REQUIRE(send_to(fixture.path, "READY=1") == 0);
    int left = turns;
    std::function<void()> end_later = [&] {
      if (left-- == 0) return fixture.sockets.reset();
      boost::asio::post(fixture.context, end_later);
    };
    boost::asio::post(fixture.context, end_later);
    while (fixture.sockets) fixture.context.poll();
    fixture.context.poll();
    CHECK(fixture.received.size() <= 1);
  }
}

// --- Who it is -----------------------------------------------------------------------------------

namespace {

// A process that sends, and lives until it is told to end.
class Sender {
 public:
  // `orphan`: its parent has ended, and it has a session of its own.
  Sender(const std::string& path, const std::string& text, bool orphan = false)
      : child_([&] {
          const pid_t parent = getpid();
          if (orphan && (setsid() < 0 || fork() != 0)) return 0;
          const pid_t self = getpid();
          char byte = 0;
          while (orphan && getppid() == parent) poll(nullptr, 0, 1);
          const int error = send_to(path, text);
          if (write(said_.writing.get(), &self, sizeof self) != sizeof self) return 1;
          end_.writing.reset();
          return error + static_cast<int>(read(end_.reading.get(), &byte, 1));
        }) {
    pollfd said{said_.reading.get(), POLLIN, 0};
    REQUIRE(poll(&said, 1, 20000) == 1);
    REQUIRE(read(said_.reading.get(), &pid_, sizeof pid_) == sizeof pid_);
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  void end() {
    end_.writing.reset();
    child_.end();
  }

 private:
  Pipe said_;
  Pipe end_;
  Child child_;
  pid_t pid_ = 0;
};

}  // namespace

TEST_CASE("a worker is known by its pid") {
  Fixture fixture;
  Sender sender(fixture.path, "READY=1");
  fixture.belongs_to(sender.pid());
  fixture.drain();
  CHECK(fixture.received.size() == 1);
  CHECK(fixture.sockets->rejected() == 0);
}

TEST_CASE("a living sender of another worker is refused, counted and named") {
  Fixture fixture;
  Sender sender(fixture.path, "READY=1");
  fixture.belongs_to(1);
  fixture.pids[sender.pid()] = WorkerId{8};
  fixture.drain();
  CHECK(fixture.received.empty());
  CHECK(fixture.sockets->rejected() == 1);
  CHECK(fixture.refused() == "a notification was refused: it came from pid " +
                                 std::to_string(sender.pid()) + ", which belongs to web.8");
  Sender second(fixture.path, "READY=1");
  fixture.pids[second.pid()] = WorkerId{9};
  fixture.drain();
  CHECK(fixture.refused() == "2 notifications were refused: the last came from pid " +
                                 std::to_string(second.pid()) + ", which belongs to web.9");
}

TEST_CASE("a sender that is gone is believed by the socket and its user") {
  Fixture fixture;
  fixture.belongs_to(1);
  CHECK(Child([&] { return send_to(fixture.path, "READY=1"); }).end() == 0);
  fixture.drain();
  CHECK(fixture.received.size() == 1);
}

TEST_CASE("in an open folder only root is believed when it is gone" *
          doctest::skip(geteuid() != 0)) {
  Fixture fixture({0, 0, true});
  fixture.belongs_to(1);
  Child stranger([&] {
    if (setresuid(65534, 65534, 65534) != 0) return 1;
    return send_to(fixture.path, "READY=1");
  });
  CHECK(stranger.end() == 0);
  fixture.drain();
  CHECK(fixture.received.empty());
  CHECK(fixture.refused().ends_with("of user 65534, which was gone"));
  CHECK(Child([&] { return send_to(fixture.path, "READY=1"); }).end() == 0);
  fixture.drain();
  CHECK(fixture.received.size() == 1);
}

TEST_CASE("a user that has no business here is refused before anything is read about him" *
          doctest::skip(geteuid() != 0)) {
  Fixture fixture({65534, 65534});
  int asked = 0;
  // One that was let in, and then became somebody else.
  Child sender([&] {
    const UniqueFd fd(socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, fixture.path.c_str(), sizeof address.sun_path - 1);
    if (connect(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) return 1;
    if (setresuid(1, 1, 1) != 0) return 2;
    return send(fd.get(), "READY=1", 7, 0) == 7 ? 0 : 3;
  });
  CHECK(sender.end() == 0);
  fixture.on_delivery = [&] { ++asked; };
  fixture.drain();
  CHECK(asked == 0);
  CHECK(fixture.refused().ends_with("of user 1"));
}

TEST_CASE("a living process that is nobody's is refused") {
  Fixture fixture;
  fixture.belongs_to(1);
  Sender sender(fixture.path, "READY=1", true);
  fixture.drain();
  CHECK(fixture.received.empty());
  CHECK(fixture.refused().ends_with("which is no process of it"));
  sender.end();
}

TEST_CASE("a worker's descendants speak for it") {
  Fixture fixture;
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
  fixture.belongs_to(child->pid());
  pid_t sender = 0;
  pollfd said{pids.reading.get(), POLLIN, 0};
  REQUIRE(poll(&said, 1, 20000) == 1);
  REQUIRE(read(pids.reading.get(), &sender, sizeof sender) == sizeof sender);
  CHECK(sender != child->pid());
  fixture.drain();
  CHECK(fixture.received.size() == 1);
  CHECK(fixture.sockets->rejected() == 0);
  end.writing.reset();
  CHECK(child->end() == 0);
}

TEST_CASE("nobody can lie about who they are") {
  Fixture fixture({getuid(), getgid(), true});
  Child liar([&] {
    if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0) return 1;
    return send_to(fixture.path, "READY=1", {}, getppid()) == EPERM ? 0 : 2;
  });
  CHECK(liar.end() == 0);
  fixture.drain();
  CHECK(fixture.received.empty());
  CHECK(fixture.sockets->rejected() == 0);
}
