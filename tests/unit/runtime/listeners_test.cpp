#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "runtime/listeners.hpp"

#include <arpa/inet.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "config/src/address.hpp"

using namespace ostler;
using runtime::ListenError;
using runtime::Listeners;
using runtime::UniqueFd;
namespace fs = std::filesystem;

namespace {

class Scratch {
 public:
  Scratch() {
    std::string pattern = (fs::temp_directory_path() / "ostler-listen-XXXXXX").string();
    REQUIRE(mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
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

config::Listener at(const std::string& address) {
  config::Listener listener;
  const auto parsed = config::parse_address(address);
  INFO(address << ": " << parsed.problem);
  REQUIRE(parsed.address);
  listener.address = *parsed.address;
  return listener;
}

std::string key_of(const config::Listener& listener) {
  return Listeners::key("app", listener);
}

bool adjust(Listeners& listeners, const config::Listener& listener, ListenError& error) {
  return listeners.adjust(key_of(listener), listener, error);
}

// Opens it; its key.
std::string opened(Listeners& listeners, const config::Listener& listener) {
  ListenError error;
  const bool open = listeners.open(key_of(listener), listener, error);
  INFO(error.stage << ": " << std::strerror(error.error));
  REQUIRE(open);
  return key_of(listener);
}

ListenError refused(Listeners& listeners, const config::Listener& listener) {
  ListenError error;
  REQUIRE_FALSE(listeners.open(key_of(listener), listener, error));
  CHECK_FALSE(listeners.is_open(key_of(listener)));
  return error;
}

// Connects to wherever a listener is bound; 0 or errno.
int connect_to(int listener, UniqueFd& client) {
  sockaddr_storage address{};
  socklen_t size = sizeof address;
  REQUIRE(getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size) == 0);
  client = UniqueFd(socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  REQUIRE(client);
  if (connect(client.get(), reinterpret_cast<sockaddr*>(&address), size) == 0) return 0;
  if (errno != EINPROGRESS) return errno;
  pollfd entry{client.get(), POLLOUT, 0};
  REQUIRE(poll(&entry, 1, 10000) == 1);
  int error = 0;
  socklen_t error_size = sizeof error;
  getsockopt(client.get(), SOL_SOCKET, SO_ERROR, &error, &error_size);
  return error;
}

int option(int fd, int level, int name) {
  int value = -1;
  socklen_t size = sizeof value;
  REQUIRE(getsockopt(fd, level, name, &value, &size) == 0);
  return value;
}

struct stat status_of(const std::string& path) {
  struct stat status {};
  REQUIRE(lstat(path.c_str(), &status) == 0);
  return status;
}

bool exists(const std::string& path) {
  return fs::exists(fs::symlink_status(path));
}

bool has_ipv6() {
  const UniqueFd fd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 address{};
  address.sin6_family = AF_INET6;
  address.sin6_addr = in6addr_loopback;
  return fd && bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0;
}

bool root() {
  return geteuid() == 0;
}

std::size_t open_descriptors() {
  const fs::directory_iterator entries("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(entries), end(entries)));
}

UniqueFd bound_unix(const std::string& path, int type) {
  UniqueFd fd(socket(AF_UNIX, type | SOCK_CLOEXEC, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, path.c_str(), sizeof address.sun_path - 1);
  REQUIRE(bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  return fd;
}

}  // namespace

TEST_CASE("equal keys are equal sockets") {
  auto listener = at("tcp://[::1]:80");
  const std::string plain = key_of(listener);
  CHECK(plain == "tcp://[::1]:80");
  listener.backlog = 7;
  listener.name = "other";
  CHECK(key_of(listener) == plain);
  listener.v6only = true;
  CHECK(key_of(listener) == plain);  // of one address it says nothing
}

TEST_CASE("an address by another name has the same key") {
  const std::string any = key_of(at("tcp://*:80"));
  auto listener = at("tcp://[::]:80");
  CHECK(key_of(listener) == any);
  listener.v6only = true;
  CHECK(key_of(listener) == any + "?v6only=1");
  CHECK(key_of(at("tcp://0.0.0.0:80")) != any);
  CHECK(key_of(at("tcp://[0:0::1]:80")) == key_of(at("tcp://[::1]:80")));
  const Scratch scratch;
  fs::create_directory(scratch / "run");
  fs::create_directory_symlink(scratch / "run", scratch / "link");
  CHECK(key_of(at("unix://" + (scratch / "link/a.sock"))) ==
        key_of(at("unix://" + (scratch / "run/a.sock"))));
  CHECK(key_of(at("unix://" + (scratch / "run/../run/a.sock"))) ==
        key_of(at("unix://" + (scratch / "run/a.sock"))));
}

TEST_CASE("a port that the kernel chooses is each listener's own") {
  auto listener = at("tcp://127.0.0.1:0");
  listener.name = "http";
  const std::string key = Listeners::key("app", listener);
  CHECK(key == Listeners::key("app", listener));
  CHECK(key != Listeners::key("other", listener));
  listener.name = "admin";
  CHECK(key != Listeners::key("app", listener));
}

// --- tcp -----------------------------------------------------------------------------------------

TEST_CASE("a tcp listener is open where it says, and takes connections before anybody accepts") {
  Listeners listeners;
  const std::string key = opened(listeners, at("tcp://127.0.0.1:0"));
  const int fd = listeners.fd(key);
  REQUIRE(fd >= 0);
  CHECK(listeners.is_open(key));
  CHECK((fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
  CHECK(option(fd, SOL_SOCKET, SO_REUSEADDR) == 1);
  struct stat status {};
  REQUIRE(fstat(fd, &status) == 0);
  CHECK(listeners.inode(key) == status.st_ino);
  UniqueFd client;
  CHECK(connect_to(fd, client) == 0);
  const auto figures = listeners.figures(key);
  CHECK(figures.address.starts_with("tcp://127.0.0.1:"));
  CHECK_FALSE(figures.address.ends_with(":0"));
  CHECK("tcp://" + listeners.server_starter_name(key) == figures.address);
}

// uvicorn takes what it inherits for a unix socket, and answered in 40 ms on kept connections.
TEST_CASE("connections send what there is at once, though the worker does not ask for it") {
  Listeners listeners;
  const std::string key = opened(listeners, at("tcp://127.0.0.1:0"));
  ListenError error;
  for (const int fd : {listeners.claim(key, core::WorkerId{1}, {}, error),
                       listeners.claim(key, core::WorkerId{2}, {}, error)}) {
    REQUIRE(fd >= 0);
    CHECK(option(fd, IPPROTO_TCP, TCP_NODELAY) == 1);
  }
  Listeners alone;
  const std::string other = opened(alone, at("tcp://127.0.0.1:0"));
  UniqueFd client;
  REQUIRE(connect_to(alone.fd(other), client) == 0);
  const UniqueFd accepted(accept4(alone.fd(other), nullptr, nullptr, SOCK_CLOEXEC));
  REQUIRE(accepted);
  CHECK(option(accepted.get(), IPPROTO_TCP, TCP_NODELAY) == 1);
}

TEST_CASE("what is closed is gone") {
  Listeners listeners;
  const std::string key = opened(listeners, at("tcp://127.0.0.1:0"));
  const auto address = at(listeners.figures(key).address);
  listeners.close(key);
  CHECK_FALSE(listeners.is_open(key));
  CHECK(listeners.fd(key) == -1);
  CHECK(listeners.inode(key) == 0);
  CHECK(listeners.figures(key).backlog == -1);
  CHECK(listeners.figures(key).address.empty());
  listeners.close(key);
  opened(listeners, address);
}

TEST_CASE("a port that is taken is an error that says which") {
  Listeners first;
  const std::string key = opened(first, at("tcp://127.0.0.1:0"));
  const std::string address = first.figures(key).address;
  Listeners second;
  const std::size_t before = open_descriptors();
  const ListenError error = refused(second, at(address));
  CHECK(error.stage == "bind " + address);
  CHECK(error.error == EADDRINUSE);
  CHECK(open_descriptors() == before);
}

TEST_CASE("opening twice is one socket") {
  Listeners listeners;
  const std::string key = opened(listeners, at("tcp://127.0.0.1:0"));
  const ino_t inode = listeners.inode(key);
  CHECK(opened(listeners, at("tcp://127.0.0.1:0")) == key);
  CHECK(listeners.inode(key) == inode);
}

TEST_CASE("localhost is known, other names are not asked for") {
  Listeners listeners;
  const std::string key = opened(listeners, at("tcp://localhost:0"));
  CHECK(listeners.figures(key).address.starts_with("tcp://127.0.0.1:"));
  for (const std::string name : {"ip6-localhost", "www.example.com"}) {
    auto listener = at("tcp://127.0.0.1:80");
    listener.address.host = name;  // which the configuration does not take
    const ListenError error = refused(listeners, listener);
    CHECK(error.error == 0);
    CHECK(error.stage.starts_with("tcp://" + name + ":80: '" + name + "' is not an address"));
  }
}

TEST_CASE("IPv6 has its own address text, and v6only is set as asked" *
          doctest::skip(!has_ipv6())) {
  Listeners listeners;
  const std::string key = opened(listeners, at("tcp://[::1]:0"));
  CHECK(listeners.figures(key).address.starts_with("tcp://[::1]:"));
  CHECK(listeners.server_starter_name(key).starts_with("[::1]:"));
  for (const bool only : {true, false}) {
    auto listener = at("tcp://[::]:0");
    listener.v6only = only;
    const int fd = listeners.fd(opened(listeners, listener));
    CHECK(option(fd, IPPROTO_IPV6, IPV6_V6ONLY) == (only ? 1 : 0));
  }
}

TEST_CASE("any address takes IPv4 clients, and IPv6 ones where there is IPv6") {
  Listeners listeners;
  for (const char* text : {"tcp://*:0", "tcp://:0"}) {
    const std::string key = opened(listeners, at(text));
    const std::string port = listeners.server_starter_name(key);
    CHECK(port.find_first_not_of("0123456789") == std::string::npos);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons(static_cast<std::uint16_t>(std::stoi(port)));
    const UniqueFd client(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(connect(client.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
    if (has_ipv6()) CHECK(listeners.figures(key).address.starts_with("tcp://[::]:"));
  }
}

// --- unix ----------------------------------------------------------------------------------------

TEST_CASE("a unix socket has the mode it is to have, whatever the umask") {
  const Scratch scratch;
  for (const mode_t mask : {0000U, 0022U, 0077U}) {
    const mode_t before = umask(mask);
    Listeners listeners;
    auto listener = at("unix://" + scratch / "app.sock");
    listener.mode = 0660;
    const std::string key = opened(listeners, listener);
    umask(before);
    CHECK((status_of(scratch / "app.sock").st_mode & 07777) == 0660);
    CHECK(listeners.figures(key).address == key);
    CHECK(listeners.server_starter_name(key) == scratch / "app.sock");
    UniqueFd client;
    CHECK(connect_to(listeners.fd(key), client) == 0);
  }
}

TEST_CASE("a unix socket's path goes with it, but nobody else's") {
  const Scratch scratch;
  const std::string path = scratch / "app.sock";
  SUBCASE("closed") {
    Listeners listeners;
    const std::string key = opened(listeners, at("unix://" + path));
    CHECK(exists(path));
    listeners.close(key);
    CHECK_FALSE(exists(path));
  }
  SUBCASE("at the end") {
    {
      Listeners listeners;
      opened(listeners, at("unix://" + path));
    }
    CHECK_FALSE(exists(path));
  }
  SUBCASE("another file is there by now") {
    Listeners listeners;
    const std::string key = opened(listeners, at("unix://" + path));
    fs::remove(path);
    const UniqueFd other = bound_unix(path, SOCK_STREAM);
    listeners.close(key);
    CHECK(exists(path));
  }
}

TEST_CASE("a unix path that nobody listens on is replaced") {
  const Scratch scratch;
  const std::string path = scratch / "app.sock";
  bound_unix(path, SOCK_STREAM);  // closed at once: the path stays
  REQUIRE(exists(path));
  Listeners listeners;
  const std::string key = opened(listeners, at("unix://" + path));
  UniqueFd client;
  CHECK(connect_to(listeners.fd(key), client) == 0);
}

TEST_CASE("a unix path that is somebody's is left alone") {
  const Scratch scratch;
  const std::string path = scratch / "app.sock";
  Listeners listeners;
  const auto check = [&] {
    const ino_t inode = status_of(path).st_ino;
    const ListenError error = refused(listeners, at("unix://" + path));
    CHECK(error.stage == "bind unix://" + path);
    CHECK(error.error == EADDRINUSE);
    CHECK(status_of(path).st_ino == inode);
  };
  SUBCASE("a listening socket") {
    const UniqueFd other = bound_unix(path, SOCK_STREAM);
    REQUIRE(listen(other.get(), 1) == 0);
    check();
  }
  SUBCASE("a listening socket whose queue is full") {
    const UniqueFd other = bound_unix(path, SOCK_STREAM);
    REQUIRE(listen(other.get(), 0) == 0);
    UniqueFd waiting;
    CHECK(connect_to(other.get(), waiting) == 0);
    check();
  }
  SUBCASE("a socket that does not listen yet") {
    const UniqueFd other = bound_unix(path, SOCK_STREAM);
    check();
  }
  SUBCASE("a datagram socket") {
    const UniqueFd other = bound_unix(path, SOCK_DGRAM);
    check();
  }
  SUBCASE("a file") {
    std::ofstream(path) << "precious";
    check();
  }
  SUBCASE("a link to a socket left over") {
    bound_unix(scratch / "stale", SOCK_STREAM);
    fs::create_symlink(scratch / "stale", path);
    check();
    CHECK(exists(scratch / "stale"));
  }
}

TEST_CASE("what cannot be bound leaves nothing behind") {
  const Scratch scratch;
  Listeners listeners;
  const std::size_t before = open_descriptors();
  CHECK(refused(listeners, at("unix://" + scratch / "none/app.sock")).error == ENOENT);
  auto listener = at("unix://" + scratch / "app.sock");
  listener.user = "no-such-user";
  const ListenError unknown = refused(listeners, listener);
  CHECK(unknown.error == 0);
  CHECK(unknown.stage == listener.address.text() + ": there is no user 'no-such-user'");
  listener.user.reset();
  listener.group = "no-such-group";
  CHECK(refused(listeners, listener).error == 0);
  listener.address.path = scratch / std::string(200, 'x');
  CHECK(refused(listeners, listener).error == ENAMETOOLONG);
  CHECK_FALSE(exists(scratch / "app.sock"));
  CHECK(open_descriptors() == before);
}

TEST_CASE("a unix socket may be given to others" * doctest::skip(!root())) {
  const Scratch scratch;
  Listeners listeners;
  auto listener = at("unix://" + scratch / "app.sock");
  listener.user = "4711";
  listener.group = "4712";
  listener.mode = 0600;
  opened(listeners, listener);
  CHECK(status_of(scratch / "app.sock").st_uid == 4711);
  CHECK(status_of(scratch / "app.sock").st_gid == 4712);
  CHECK((status_of(scratch / "app.sock").st_mode & 07777) == 0600);
  listener.user.reset();
  listener.group.reset();
  ListenError error;
  CHECK(adjust(listeners, listener, error));
  CHECK(status_of(scratch / "app.sock").st_uid == geteuid());
  CHECK(status_of(scratch / "app.sock").st_gid == getegid());
}

TEST_CASE("an ordinary user cannot give sockets away" * doctest::skip(root())) {
  const Scratch scratch;
  Listeners listeners;
  auto listener = at("unix://" + scratch / "app.sock");
  listener.user = "root";
  const ListenError error = refused(listeners, listener);
  CHECK(error.stage == "set owner and mode of " + listener.address.text());
  CHECK(error.error == EPERM);
  CHECK_FALSE(exists(scratch / "app.sock"));
}

TEST_CASE("mode and backlog of an open socket can be changed") {
  const Scratch scratch;
  Listeners listeners;
  auto listener = at("unix://" + scratch / "app.sock");
  listener.backlog = 5;
  const std::string key = opened(listeners, listener);
  CHECK(listeners.figures(key).backlog_limit == 5);
  listener.backlog = 3;
  listener.mode = 0640;
  const ino_t inode = listeners.inode(key);
  ListenError error;
  CHECK(adjust(listeners, listener, error));
  CHECK(listeners.figures(key).backlog_limit == 3);
  CHECK(listeners.inode(key) == inode);
  CHECK((status_of(scratch / "app.sock").st_mode & 07777) == 0640);
  CHECK_FALSE(adjust(listeners, at("unix://" + scratch / "other.sock"), error));
  CHECK(error.error == 0);
}

TEST_CASE("whatever lies at the path by now, only the socket's own file is changed") {
  const Scratch scratch;
  Listeners listeners;
  auto listener = at("unix://" + scratch / "app.sock");
  opened(listeners, listener);
  std::ofstream(scratch / "precious") << "x";
  fs::permissions(scratch / "precious", fs::perms::owner_read);
  fs::remove(scratch / "app.sock");
  fs::create_symlink(scratch / "precious", scratch / "app.sock");
  listener.mode = 0640;
  ListenError error;
  static_cast<void>(adjust(listeners, listener, error));
  CHECK((status_of(scratch / "precious").st_mode & 07777) == 0400);
}

TEST_CASE("an abstract socket has no file") {
  Listeners listeners;
  const std::string name = "ostler-listeners-test-" + std::to_string(getpid());
  const std::string key = opened(listeners, at("unix:@" + name));
  CHECK(listeners.figures(key).address == "unix:@" + name);
  CHECK(listeners.server_starter_name(key) == "@" + name);
  UniqueFd client;
  CHECK(connect_to(listeners.fd(key), client) == 0);
  Listeners others;
  CHECK(refused(others, at("unix:@" + name)).error == EADDRINUSE);
}

// --- Figures -------------------------------------------------------------------------------------

TEST_CASE("the queue and its limit are the kernel's") {
  const Scratch scratch;
  const std::vector<std::string> addresses = {
      "tcp://127.0.0.1:0", "unix://" + scratch / "app.sock",
      "unix:@ostler-listeners-queue-" + std::to_string(getpid())};
  for (const std::string& address : addresses) {
    CAPTURE(address);
    Listeners listeners;
    auto listener = at(address);
    listener.backlog = 11;
    const std::string key = opened(listeners, listener);
    CHECK(listeners.figures(key).backlog == 0);
    CHECK(listeners.figures(key).backlog_limit == 11);
    std::array<UniqueFd, 3> clients;
    for (UniqueFd& client : clients) REQUIRE(connect_to(listeners.fd(key), client) == 0);
    CHECK(listeners.figures(key).backlog == 3);
    const UniqueFd accepted(accept4(listeners.fd(key), nullptr, nullptr, SOCK_CLOEXEC));
    CHECK(listeners.figures(key).backlog == 2);
  }
}

TEST_CASE("the limit shows what the system made of it") {
  std::ifstream file("/proc/sys/net/core/somaxconn");
  int most = 0;
  file >> most;
  REQUIRE(most > 0);
  Listeners listeners;
  auto listener = at("tcp://127.0.0.1:0");
  listener.backlog = 1'000'000;
  CHECK(listeners.figures(opened(listeners, listener)).backlog_limit == most);
}

// --- Inherited -----------------------------------------------------------------------------------

namespace {

// What systemd does for a service with sockets. Descriptors 3 to 9 are its own for as long as it
// lives, so that no other socket is among them, and are put back then.
class Activation {
 public:
  Activation() {
    for (int fd = kFirst; fd < kFirst + kCount; ++fd) {
      saved_.emplace_back(fcntl(fd, F_DUPFD_CLOEXEC, 200));
    }
    const UniqueFd place(fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 100));
    for (int fd = kFirst; fd < kFirst + kCount; ++fd) REQUIRE(dup2(place.get(), fd) == fd);
  }
  ~Activation() {
    for (int i = 0; i < kCount; ++i) {
      const UniqueFd& saved = saved_[static_cast<std::size_t>(i)];
      if (!saved) close(kFirst + i);
      if (saved) dup3(saved.get(), kFirst + i, O_CLOEXEC);
    }
  }
  Activation(const Activation&) = delete;
  Activation& operator=(const Activation&) = delete;

  static void hand_over(const std::vector<int>& fds, const char* names, pid_t pid = getpid()) {
    int next = kFirst;
    for (const int fd : fds) REQUIRE(dup2(fd, next++) >= kFirst);
    setenv("LISTEN_PID", std::to_string(pid).c_str(), 1);
    setenv("LISTEN_FDS", std::to_string(fds.size()).c_str(), 1);
    setenv("LISTEN_PIDFDID", "1", 1);
    if (names != nullptr) setenv("LISTEN_FDNAMES", names, 1);
  }

 private:
  static constexpr int kFirst = 3;
  static constexpr int kCount = 7;
  std::vector<UniqueFd> saved_;
};

void check_environment_is_clean() {
  for (const char* name : {"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}) {
    CHECK(getenv(name) == nullptr);
  }
}

}  // namespace

TEST_CASE("sockets that were handed over are taken by name") {
  const Activation activation;
  Listeners here;
  auto second = at("unix:@ostler-inherited-" + std::to_string(getpid()));
  const std::string web_key = opened(here, at("tcp://127.0.0.1:0"));
  const int web = here.fd(web_key);
  const int admin = here.fd(opened(here, second));
  const UniqueFd plain(memfd_create("no socket", MFD_CLOEXEC));
  Activation::hand_over({web, admin, web, plain.get()}, "web:admin:web:file");
  auto inherited = runtime::take_inherited_sockets();
  check_environment_is_clean();
  CHECK(inherited.at("web").size() == 2);
  CHECK(inherited.at("admin").size() == 1);
  CHECK(inherited.count("file") == 0);
  for (const auto& [name, fds] : inherited) {
    for (const UniqueFd& fd : fds) CHECK((fcntl(fd.get(), F_GETFD) & FD_CLOEXEC) != 0);
  }

  Listeners listeners(std::move(inherited));
  const std::string key = opened(listeners, at("inherit:web"));
  CHECK(key == "inherit:web");
  CHECK(listeners.inode(key) == here.inode(web_key));
  CHECK(listeners.figures(key).address == here.figures(web_key).address);
  const std::string other = opened(listeners, at("inherit:admin"));
  CHECK(listeners.figures(other).address == second.address.text());
  ListenError error;
  auto changed = at("inherit:web");
  changed.backlog = 9;
  CHECK(adjust(listeners, changed, error));
  CHECK(listeners.figures(key).backlog_limit == 2048);
  const ListenError missing = refused(listeners, at("inherit:none"));
  CHECK(missing.error == 0);
  CHECK(missing.stage == "inherit:none: no listening socket of that name was handed over");

  listeners.close(other);
  CHECK(opened(listeners, at("inherit:admin")) == other);
  CHECK(listeners.figures(other).address == second.address.text());
}

TEST_CASE("sockets without names are unknown ones") {
  const Activation activation;
  Listeners here;
  const int fd = here.fd(opened(here, at("tcp://127.0.0.1:0")));
  Activation::hand_over({fd}, nullptr);
  CHECK(runtime::take_inherited_sockets().count("unknown") == 1);
  check_environment_is_clean();
}

TEST_CASE("sockets for another process are not taken") {
  const Activation activation;
  Listeners here;
  const int fd = here.fd(opened(here, at("tcp://127.0.0.1:0")));
  Activation::hand_over({fd}, "web", getpid() + 1);
  CHECK(runtime::take_inherited_sockets().empty());
  CHECK(fcntl(3, F_GETFD) >= 0);
  check_environment_is_clean();
}

TEST_CASE("nonsense in the environment is no socket") {
  for (const char* count : {"-1", "", "x", "99999999999", "3x", " 1"}) {
    setenv("LISTEN_PID", std::to_string(getpid()).c_str(), 1);
    setenv("LISTEN_FDS", count, 1);
    CHECK(runtime::take_inherited_sockets().empty());
    check_environment_is_clean();
  }
  CHECK(runtime::take_inherited_sockets().empty());
}
