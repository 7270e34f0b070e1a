#include "ostler/test/fake_manager.hpp"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <exception>
#include <stdexcept>
#include <string_view>
#include <system_error>
#include <utility>

#include "ostler/protocol.h"

namespace ostler::test {
namespace {

using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;

constexpr int kFirstDescriptor = 3;
constexpr unsigned kKept = 200;  // a function finds the test's descriptors from here on
constexpr int kHigh = 500;       // where descriptors are kept while they are put in their places
constexpr std::string_view kPid = "LISTEN_PID=";
constexpr std::size_t kPidDigits = 10;

int checked(long result, const std::string& what) {
  if (result < 0) throw std::system_error(errno, std::generic_category(), what);
  return static_cast<int>(result);
}

class Fd {
 public:
  explicit Fd(int fd = -1) : fd_(fd) {}
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  Fd(Fd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Fd& operator=(Fd&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
  }
  [[nodiscard]] int get() const { return fd_; }
  [[nodiscard]] int release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

std::pair<Fd, Fd> make_pair(int type) {
  std::array<int, 2> ends{};
  checked(::socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends.data()), "make a socket pair");
  return {Fd(ends[0]), Fd(ends[1])};
}

sockaddr_in address_of(int socket) {
  sockaddr_in address{};
  socklen_t size = sizeof address;
  checked(::getsockname(socket, reinterpret_cast<sockaddr*>(&address), &size),
          "ask for a listener's address");
  return address;
}

Fd make_listener(bool non_blocking) {
  Fd listener(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "make a listener"));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  checked(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "bind a listener");
  checked(::listen(listener.get(), SOMAXCONN), "listen");
  if (non_blocking) checked(::fcntl(listener.get(), F_SETFL, O_NONBLOCK), "set O_NONBLOCK");
  return listener;
}

Fd make_page() {
  Fd memory(checked(::memfd_create("scoreboard", MFD_CLOEXEC), "make a scoreboard"));
  checked(::ftruncate(memory.get(), OSTLER_SCOREBOARD_SIZE), "size a scoreboard");
  const struct {
    std::uint64_t magic = OSTLER_SCOREBOARD_MAGIC;
    std::uint32_t version = OSTLER_PROTOCOL_VERSION;
    std::uint32_t size = OSTLER_SCOREBOARD_SIZE;
  } header;
  checked(::pwrite(memory.get(), &header, sizeof header, 0), "fill in a scoreboard");
  return memory;
}

void limit_reads(int socket, milliseconds limit) {
  const timeval time{.tv_sec = limit.count() / 1000, .tv_usec = limit.count() % 1000 * 1000};
  checked(::setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof time), "limit reads");
}

template <class T>
T load(T& field) {
  return std::atomic_ref<T>(field).load(std::memory_order_acquire);
}

bool readable_until(int fd, Clock::time_point until) {
  while (true) {
    const auto left = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
    pollfd wanted{fd, POLLIN, 0};
    const int found = ::poll(&wanted, 1, static_cast<int>(std::max<long>(0, left)));
    if (found > 0) return true;
    if (found == 0) return false;
    if (errno != EINTR) checked(-1, "poll");
  }
}

bool has_line(std::string_view text, std::string_view line) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    if (text.substr(0, end) == line) return true;
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return false;
}

// In the child: the descriptors become 3, 4, …
void put_in_place(const std::vector<int>& descriptors) {
  int next = kFirstDescriptor;
  for (const int each : descriptors) {
    if (::dup2(each, next++) < 0) ::_exit(98);
    ::close(each);
  }
}

// In the child: as a manager does, whatever the test framework has set.
void reset_signals() {
  for (int signal = 1; signal < NSIG; ++signal) ::signal(signal, SIG_DFL);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

// "NAME=value" for each; LISTEN_PID has room for what only the child knows.
std::vector<std::string> make_environment(const std::map<std::string, std::string>& variables) {
  std::vector<std::string> texts{std::string(kPid) + std::string(kPidDigits, '0')};
  for (char** each = environ; *each != nullptr; ++each) {
    const std::string text = *each;
    const std::string name = text.substr(0, text.find('='));
    const bool ours = name.starts_with("LISTEN_") || name.starts_with("OSTLER_") ||
                      name.starts_with("WATCHDOG_") || name == "NOTIFY_SOCKET";
    if (!ours && !variables.contains(name)) texts.push_back(text);
  }
  for (const auto& [name, value] : variables) texts.push_back(name + "=" + value);
  return texts;
}

void write_pid(std::string& variable) {
  pid_t pid = ::getpid();
  for (std::size_t i = variable.size(); i-- > kPid.size(); pid /= 10) {
    variable[i] = static_cast<char>('0' + pid % 10);
  }
}

}  // namespace

struct fake_manager::state {
  fake_manager_options options;
  std::string directory;
  std::vector<Fd> listeners;
  Fd notify;
  Fd channel;
  Fd worker_channel;  // until it has been inherited
  Fd memory;
  Fd errors;
  std::vector<Fd> dispatched;  // copies of connections
  ostler_scoreboard* page = nullptr;
  [[nodiscard]] ostler_scoreboard& scoreboard() const {
    if (page == nullptr) throw std::logic_error("without a channel there is no scoreboard");
    return *page;
  }
  pid_t pid = -1;
  Fd pidfd;
  std::string errors_seen;
  std::deque<ostler_message> set_aside;  // what came on the channel before READY

  explicit state(fake_manager_options wanted) : options(std::move(wanted)) {}
  state(const state&) = delete;
  state& operator=(const state&) = delete;
  ~state() {
    if (pid > 0) {
      ::kill(pid, SIGKILL);
      ::waitpid(pid, nullptr, 0);
    }
    show_errors();
    if (page != nullptr) ::munmap(page, OSTLER_SCOREBOARD_SIZE);
    if (directory.empty()) return;
    ::unlink(notify_path().c_str());
    ::rmdir(directory.c_str());
  }

  [[nodiscard]] std::string notify_path() const { return directory + "/notify"; }
  void show_errors() const;
  void open_notify();
  void open_channel();
  [[nodiscard]] std::map<std::string, std::string> variables() const;
  void start();
  [[noreturn]] void become_worker(const std::vector<int>& descriptors,
                                  std::vector<std::string>& environment, int error_end);
  void await(int fd, const std::string& what) const;
  void send(const void* data, std::size_t size, const std::vector<int>& descriptors) const;
  ostler_message next_message(std::vector<int>& descriptors, bool is_new = false);
  ostler_message wait_for(std::uint32_t type);
  void wait_ready();
  void send_batch(const std::vector<int>& connections, std::uint64_t listener) const;
};

// What nobody has waited for is passed on: it may say why a test failed.
void fake_manager::state::show_errors() const {
  std::array<char, 4096> piece{};
  while (errors.get() >= 0 && readable_until(errors.get(), Clock::now())) {
    const ssize_t size = ::read(errors.get(), piece.data(), piece.size());
    if (size <= 0) return;
    std::fwrite(piece.data(), 1, static_cast<std::size_t>(size), stderr);
  }
}

void fake_manager::state::open_notify() {
  const char* const base = std::getenv("TMPDIR");
  directory = std::string(base != nullptr ? base : "/tmp") + "/ostler-test-XXXXXX";
  if (::mkdtemp(directory.data()) == nullptr) {
    directory.clear();
    checked(-1, "make a directory for the notify socket");
  }
  notify = Fd(checked(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "make a notify socket"));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  notify_path().copy(address.sun_path, sizeof address.sun_path - 1);
  checked(::bind(notify.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "bind " + notify_path());
}

void fake_manager::state::open_channel() {
  memory = make_page();
  void* const mapped =
      ::mmap(nullptr, OSTLER_SCOREBOARD_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memory.get(), 0);
  if (mapped == MAP_FAILED) checked(-1, "map a scoreboard");
  page = static_cast<ostler_scoreboard*>(mapped);
  std::tie(channel, worker_channel) = make_pair(SOCK_SEQPACKET);
}

std::map<std::string, std::string> fake_manager::state::variables() const {
  const std::size_t inherited = options.dispatch ? 0 : listeners.size();
  std::map<std::string, std::string> all{{"NOTIFY_SOCKET", notify_path()},
                                         {"OSTLER_POOL", "test"},
                                         {"OSTLER_SLOT", "0"},
                                         {"OSTLER_GENERATION", "1"}};
  if (options.dispatch) {
    all[OSTLER_ENV_ACCEPT] = "dispatch";
  } else {
    all["LISTEN_FDS"] = std::to_string(inherited);
  }
  if (options.channel) {
    const std::size_t next = kFirstDescriptor + inherited;
    all[OSTLER_ENV_CHANNEL_FD] = std::to_string(next);
    all[OSTLER_ENV_SCOREBOARD_FD] = std::to_string(next + 1);
  }
  if (!options.worker_options.empty()) all[OSTLER_ENV_WORKER_OPTIONS] = options.worker_options;
  if (options.recycle_requests > 0) {
    all[OSTLER_ENV_RECYCLE_REQUESTS] = std::to_string(options.recycle_requests);
  }
  if (options.warmup) all[OSTLER_ENV_WARMUP] = "1";
  if (options.heartbeat.count() > 0) {
    all["WATCHDOG_USEC"] = std::to_string(options.heartbeat.count() * 1000);
  }
  for (const auto& [name, value] : options.environment) all[name] = value;
  return all;
}

void fake_manager::state::start() {
  std::vector<Fd> copies;
  std::vector<int> descriptors;
  const auto inherit = [&](const Fd& fd) {
    copies.emplace_back(checked(::fcntl(fd.get(), F_DUPFD_CLOEXEC, kHigh), "copy a descriptor"));
    descriptors.push_back(copies.back().get());
  };
  if (!options.dispatch) {
    for (const auto& each : listeners) inherit(each);
  }
  if (options.channel) {
    inherit(worker_channel);
    inherit(memory);
  }
  auto environment = make_environment(variables());
  std::array<int, 2> ends{};
  checked(::pipe2(ends.data(), O_CLOEXEC), "make a pipe");
  errors = Fd(ends[0]);
  const Fd error_end(ends[1]);
  std::fflush(nullptr);
  pid = checked(::fork(), "fork");
  if (pid == 0) become_worker(descriptors, environment, error_end.get());
  worker_channel = Fd();
  memory = Fd();
  pidfd = Fd(checked(::syscall(SYS_pidfd_open, pid, 0), "open a pidfd"));
}

void fake_manager::state::become_worker(const std::vector<int>& descriptors,
                                        std::vector<std::string>& environment, int error_end) {
  ::dup2(error_end, STDERR_FILENO);
  put_in_place(descriptors);
  reset_signals();
  write_pid(environment.front());
  if (options.body) {
    const auto first_free = static_cast<unsigned>(kFirstDescriptor + descriptors.size());
    ::close_range(first_free, kKept - 1, 0);
    for (auto& each : environment) ::putenv(each.data());
    int code = 99;
    try {
      code = options.body();
    } catch (const std::exception& error) {
      std::fprintf(stderr, "in a worker of the test: %s\n", error.what());
    }
    std::fflush(nullptr);
    ::_exit(code);
  }
  std::vector<char*> arguments;
  for (auto& each : options.command) arguments.push_back(each.data());
  arguments.push_back(nullptr);
  std::vector<char*> variables;
  variables.reserve(environment.size() + 1);
  for (auto& each : environment) variables.push_back(each.data());
  variables.push_back(nullptr);
  ::execvpe(arguments[0], arguments.data(), variables.data());
  std::fprintf(stderr, "execute %s: %s\n", arguments[0], std::strerror(errno));
  ::_exit(97);
}

void fake_manager::state::await(int fd, const std::string& what) const {
  const auto until = Clock::now() + options.patience;
  while (true) {
    std::array<pollfd, 2> wanted{{{fd, POLLIN, 0}, {pidfd.get(), POLLIN, 0}}};
    const auto left = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
    const int found =
        ::poll(wanted.data(), wanted.size(), static_cast<int>(std::max<long>(0, left)));
    if (found < 0 && errno != EINTR) checked(-1, "poll");
    if (wanted[0].revents != 0) return;
    if (found == 0) throw std::runtime_error("waited long for " + what);
    if (found > 0) throw std::runtime_error("the worker ended before " + what);
  }
}

void fake_manager::state::send(const void* data, std::size_t size,
                               const std::vector<int>& descriptors) const {
  iovec part{const_cast<void*>(data), size};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  std::vector<char> control(CMSG_SPACE(sizeof(int) * descriptors.size()));
  if (!descriptors.empty()) {
    header.msg_control = control.data();
    header.msg_controllen = control.size();
    cmsghdr* const rights = CMSG_FIRSTHDR(&header);
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    std::memcpy(CMSG_DATA(rights), descriptors.data(), sizeof(int) * descriptors.size());
  }
  checked(::sendmsg(channel.get(), &header, MSG_NOSIGNAL), "send over the channel");
}

// By the channel, as a worker built on the SDK says it, or by the notify socket.
void fake_manager::state::wait_ready() {
  const auto until = Clock::now() + options.patience;
  int open = channel.get();
  while (true) {
    std::array<pollfd, 3> wanted{
        {{notify.get(), POLLIN, 0}, {open, POLLIN, 0}, {pidfd.get(), POLLIN, 0}}};
    const auto left = std::chrono::ceil<milliseconds>(until - Clock::now()).count();
    const int found =
        ::poll(wanted.data(), wanted.size(), static_cast<int>(std::max<long>(0, left)));
    if (found < 0 && errno != EINTR) checked(-1, "poll");
    if (found == 0) throw std::runtime_error("waited long for READY=1");
    if (wanted[1].revents != 0) {
      char byte = 0;
      if (::recv(open, &byte, 1, MSG_PEEK | MSG_DONTWAIT) <= 0) {
        open = -1;  // the worker has closed it, or has ended
        continue;
      }
      std::vector<int> descriptors;
      const auto message = next_message(descriptors, true);
      for (const int each : descriptors) ::close(each);
      if (message.type == OSTLER_READY) return;
      set_aside.push_back(message);
    } else if (wanted[0].revents != 0) {
      std::array<char, 8192> text{};
      const int size = checked(::recv(notify.get(), text.data(), text.size(), 0), "receive");
      if (has_line({text.data(), static_cast<std::size_t>(size)}, "READY=1")) return;
    } else if (found > 0 && wanted[2].revents != 0) {
      throw std::runtime_error("the worker ended before a notification");
    }
  }
}

ostler_message fake_manager::state::next_message(std::vector<int>& descriptors, bool is_new) {
  if (!is_new && !set_aside.empty()) {
    const ostler_message message = set_aside.front();
    set_aside.pop_front();
    descriptors.clear();
    return message;
  }
  ostler_message message{};
  iovec part{&message, sizeof message};
  alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int) * OSTLER_BATCH)> control{};
  msghdr header{};
  header.msg_iov = &part;
  header.msg_iovlen = 1;
  header.msg_control = control.data();
  header.msg_controllen = control.size();
  const int size = checked(::recvmsg(channel.get(), &header, MSG_CMSG_CLOEXEC), "read the channel");
  if (size != static_cast<int>(sizeof message) || (header.msg_flags & MSG_CTRUNC) != 0) {
    throw std::runtime_error("the worker sent a message of " + std::to_string(size) + " bytes");
  }
  descriptors.clear();
  if (const cmsghdr* const rights = CMSG_FIRSTHDR(&header); rights != nullptr) {
    descriptors.resize((rights->cmsg_len - CMSG_LEN(0)) / sizeof(int));
    std::memcpy(descriptors.data(), CMSG_DATA(rights), descriptors.size() * sizeof(int));
  }
  return message;
}

void fake_manager::state::send_batch(const std::vector<int>& connections,
                                     std::uint64_t listener) const {
  const ostler_message message{OSTLER_DISPATCH, static_cast<std::uint32_t>(connections.size()),
                               listener};
  send(&message, sizeof message, connections);
}

fake_manager::fake_manager(fake_manager_options options)
    : state_(std::make_unique<state>(std::move(options))) {
  if (state_->options.command.empty() == !state_->options.body) {
    throw std::invalid_argument("a fake manager needs a command or a function");
  }
  for (std::size_t i = 0; i < state_->options.listeners; ++i) {
    state_->listeners.push_back(make_listener(state_->options.non_blocking));
  }
  state_->open_notify();
  if (state_->options.channel) state_->open_channel();
  state_->start();
}

fake_manager::~fake_manager() = default;

pid_t fake_manager::pid() const {
  return state_->pid;
}

std::uint16_t fake_manager::port(std::size_t listener) const {
  return ntohs(address_of(state_->listeners.at(listener).get()).sin_port);
}

int fake_manager::connect(std::size_t listener) const {
  Fd client(checked(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), "make a client"));
  const sockaddr_in address = address_of(state_->listeners.at(listener).get());
  limit_reads(client.get(), state_->options.patience);
  checked(::connect(client.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address),
          "connect");
  return client.release();
}

std::string fake_manager::next_notification() {
  state_->await(state_->notify.get(), "a notification");
  std::array<char, 8192> text{};
  const int size = checked(::recv(state_->notify.get(), text.data(), text.size(), 0), "receive");
  return {text.data(), static_cast<std::size_t>(size)};
}

void fake_manager::wait_for(const std::string& assignment) {
  if (assignment == "READY=1") return state_->wait_ready();
  while (!has_line(next_notification(), assignment)) {
  }
}

ostler_message fake_manager::state::wait_for(std::uint32_t type) {
  std::vector<int> descriptors;
  ostler_message found{};
  do {
    if (set_aside.empty()) {
      await(channel.get(), "message " + std::to_string(type) + " on the channel");
    }
    found = next_message(descriptors);
    for (const int each : descriptors) ::close(each);
  } while (found.type != type);
  return found;
}

void fake_manager::wait_for_message(std::uint32_t type) {
  state_->wait_for(type);
}

not_taken_connections fake_manager::wait_not_taken() {
  const ostler_message message = state_->wait_for(OSTLER_NOT_TAKEN);
  return {message.count, message.value};
}

bool fake_manager::hears_message(milliseconds time) const {
  return !state_->set_aside.empty() || readable_until(state_->channel.get(), Clock::now() + time);
}

worker_figures fake_manager::figures() const {
  ostler_scoreboard& page = state_->scoreboard();
  return {.worker_class = load(page.worker_class),
          .capacity = load(page.capacity),
          .awake = load(page.awake) != 0,
          .beat = load(page.beat),
          .requests = load(page.requests),
          .accepted = load(page.accepted),
          .connections = load(page.connections),
          .active = load(page.active),
          .busy_since = load(page.busy_since),
          .taken = load(page.taken),
          .not_taken = load(page.not_taken),
          .concurrency = load(page.concurrency),
          .wanted = load(page.wanted) != 0};
}

std::vector<shown_request> fake_manager::requests() const {
  ostler_scoreboard& page = state_->scoreboard();
  std::vector<shown_request> shown;
  for (std::size_t i = 0; i < OSTLER_REQUESTS_SHOWN; ++i) {
    shown_request request{.start = load(page.start[i]),
                          .progress = load(page.progress[i]),
                          .until = load(page.until[i]),
                          .thread = static_cast<pid_t>(load(page.thread[i])),
                          .text = {}};
    if (request.start == 0) continue;
    for (char& each : page.text[i]) {
      const char c = load(each);
      if (c == '\0') break;
      request.text += c;
    }
    if (load(page.start[i]) == request.start) shown.push_back(std::move(request));
  }
  return shown;
}

worker_figures fake_manager::wait_until(
    const std::function<bool(const worker_figures&)>& condition) const {
  const auto until = Clock::now() + state_->options.patience;
  while (true) {
    const auto now = figures();
    if (condition(now)) return now;
    if (Clock::now() > until) throw std::runtime_error("waited long for the worker's figures");
    if (readable_until(state_->pidfd.get(), Clock::now() + milliseconds(1))) {
      throw std::runtime_error("the worker ended while its figures were waited for");
    }
  }
}

int fake_manager::hand_over(bool is_private) {
  auto [mine, workers] = make_pair(SOCK_STREAM);
  limit_reads(mine.get(), state_->options.patience);
  const ostler_message message{OSTLER_CONNECTION, is_private ? std::uint32_t{OSTLER_PRIVATE} : 0U,
                               0};
  state_->send(&message, sizeof message, {workers.get()});
  return mine.release();
}

void fake_manager::let_accept() {
  const ostler_message message{OSTLER_ACCEPT, 0, 0};
  state_->send(&message, sizeof message, {});
}

void fake_manager::send_rubbish(const std::string& bytes, const std::vector<int>& descriptors) {
  state_->send(bytes.data(), bytes.size(), descriptors);
}

void fake_manager::close_channel() {
  state_->channel = Fd();
}

std::vector<int> fake_manager::dispatch(std::size_t count, std::size_t listener) {
  std::vector<int> clients;
  std::vector<int> connections;
  for (std::size_t i = 0; i < count; ++i) {
    clients.push_back(connect(listener));
    state_->dispatched.emplace_back(
        checked(::accept4(state_->listeners.at(listener).get(), nullptr, nullptr, SOCK_CLOEXEC),
                "accept a connection"));
    connections.push_back(state_->dispatched.back().get());
  }
  state_->send_batch(connections, listener);
  return clients;
}

void fake_manager::dispatch_again(const std::vector<returned_connection>& connections) {
  std::vector<int> descriptors;
  descriptors.reserve(connections.size());
  for (const auto& each : connections) descriptors.push_back(each.fd);
  state_->send_batch(descriptors, connections.at(0).listener);
  for (const int each : descriptors) ::close(each);
}

void fake_manager::close_copies() {
  state_->dispatched.clear();
}

void fake_manager::want_room() {
  std::atomic_ref(state_->scoreboard().wanted).store(1);
}

void fake_manager::drain() {
  const ostler_message message{OSTLER_DRAIN, 0, 0};
  state_->send(&message, sizeof message, {});
  ask_to_stop();
}

std::vector<returned_connection> fake_manager::wait_returned(std::size_t count) {
  std::vector<returned_connection> returned;
  while (returned.size() < count) {
    state_->await(state_->channel.get(), "the return of connections");
    std::vector<int> descriptors;
    const auto message = state_->next_message(descriptors);
    if (descriptors.size() != (message.type == OSTLER_RETURN ? message.count : 0)) {
      throw std::runtime_error("the worker sent " + std::to_string(descriptors.size()) +
                               " descriptors with message " + std::to_string(message.type));
    }
    for (const int each : descriptors) {
      returned.push_back({each, message.value, descriptors.size()});
    }
  }
  return returned;
}

void fake_manager::signal(int signal) const {
  if (state_->pid <= 0) throw std::logic_error("the worker has ended: there is none to signal");
  checked(::kill(state_->pid, signal), "signal the worker");
}

void fake_manager::ask_to_stop() const {
  signal(SIGTERM);
}

std::string fake_manager::wait_for_error(const std::string& text) {
  const auto until = Clock::now() + state_->options.patience;
  std::array<char, 4096> piece{};
  while (state_->errors_seen.find(text) == std::string::npos) {
    if (!readable_until(state_->errors.get(), until)) {
      throw std::runtime_error("waited long for '" + text + "' on stderr after '" +
                               state_->errors_seen + "'");
    }
    const int size =
        checked(::read(state_->errors.get(), piece.data(), piece.size()), "read stderr");
    if (size == 0) throw std::runtime_error("only '" + state_->errors_seen + "' is on stderr");
    state_->errors_seen.append(piece.data(), static_cast<std::size_t>(size));
  }
  return state_->errors_seen;
}

int fake_manager::wait() {
  if (state_->pid <= 0) throw std::logic_error("the worker has ended, and was waited for");
  if (!readable_until(state_->pidfd.get(), Clock::now() + state_->options.patience)) {
    throw std::runtime_error("waited long for the worker's end");
  }
  int status = 0;
  checked(::waitpid(state_->pid, &status, 0), "wait for the worker");
  state_->pid = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

}  // namespace ostler::test
