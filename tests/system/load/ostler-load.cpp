// ostler-load: closed-loop HTTP clients, one thread each, that count what is lost and how.
//
// Every request bears a number of its own. With --echo it is sent as a body and must come back,
// so that an answer to somebody else's request is a failure and not a success. Prints "running"
// once every client has had its first outcome, and a line of JSON at the end.
#include <arpa/inet.h>
#include <getopt.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;

constexpr char kUsage[] =
    "usage: ostler-load --address tcp://IP:PORT|tcp://[IP]:PORT|unix:///PATH|unix:@NAME "
    "[OPTION]...\n"
    "  --clients N     closed-loop clients (default 8)\n"
    "  --keepalive     many requests on one connection\n"
    "  --path PATH     what to GET (default /)\n"
    "  --echo          POST /echo instead, and compare what comes back\n"
    "  --timeout MS    the longest wait for one answer (default 10000)\n"
    "  --seconds S     stop after so long; TERM and INT stop it at any time\n"
    "  --pause US      wait so long between two requests of a client\n";

struct Options {
  sockaddr_storage address{};
  socklen_t address_size = 0;
  unsigned clients = 8;
  bool keepalive = false;
  bool echo = false;
  std::string path = "/";
  long timeout_ms = 10'000;
  double seconds = 0;
  long pause_us = 0;
};

enum Kind : std::size_t {
  kRefused,
  kReset,
  kTimeout,
  kClosed,
  kBadStatus,
  kWrongBody,
  kOther,
  kKinds
};
constexpr std::array<const char*, kKinds> kKindNames = {
    "refused", "reset", "timeout", "closed", "bad_status", "wrong_body", "other"};

struct Tally {
  std::uint64_t sent = 0;
  std::uint64_t ok = 0;
  std::array<std::uint64_t, kKinds> failed{};
  std::string first;                     // how the first one failed
  std::vector<std::uint32_t> latencies;  // microseconds, of those that were answered
};

std::atomic<bool> stopping{false};
std::atomic<unsigned> under_way{0};

[[noreturn]] void usage(const char* why) {
  std::fprintf(stderr, "ostler-load: %s\n%s", why, kUsage);
  std::exit(2);
}

bool parse_tcp(std::string_view text, Options& options) {
  const auto colon = text.rfind(':');
  if (colon == std::string::npos) return false;
  std::string host(text.substr(0, colon));
  const auto port = htons(static_cast<std::uint16_t>(std::atoi(text.data() + colon + 1)));
  if (host.starts_with('[') && host.ends_with(']')) {
    auto* address = reinterpret_cast<sockaddr_in6*>(&options.address);
    address->sin6_family = AF_INET6;
    address->sin6_port = port;
    options.address_size = sizeof *address;
    return ::inet_pton(AF_INET6, host.substr(1, host.size() - 2).c_str(), &address->sin6_addr) == 1;
  }
  auto* address = reinterpret_cast<sockaddr_in*>(&options.address);
  address->sin_family = AF_INET;
  address->sin_port = port;
  options.address_size = sizeof *address;
  return ::inet_pton(AF_INET, host.c_str(), &address->sin_addr) == 1;
}

bool parse_unix(std::string_view path, Options& options) {
  auto* address = reinterpret_cast<sockaddr_un*>(&options.address);
  if (path.empty() || path.size() >= sizeof address->sun_path) return false;
  address->sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), address->sun_path);
  const bool abstract = path[0] == '@';
  if (abstract) address->sun_path[0] = '\0';
  options.address_size =
      static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
  return true;
}

bool parse_address(std::string_view text, Options& options) {
  if (text.starts_with("tcp://")) return parse_tcp(text.substr(6), options);
  if (text.starts_with("unix://")) return parse_unix(text.substr(7), options);
  if (text.starts_with("unix:@")) return parse_unix(text.substr(5), options);
  return false;
}

Options parse(int argc, char** argv) {
  static const option kOptions[] = {{"address", required_argument, nullptr, 'a'},
                                    {"clients", required_argument, nullptr, 'c'},
                                    {"keepalive", no_argument, nullptr, 'k'},
                                    {"echo", no_argument, nullptr, 'e'},
                                    {"path", required_argument, nullptr, 'p'},
                                    {"timeout", required_argument, nullptr, 't'},
                                    {"seconds", required_argument, nullptr, 's'},
                                    {"pause", required_argument, nullptr, 'u'},
                                    {nullptr, 0, nullptr, 0}};
  Options options;
  for (int flag = 0; (flag = ::getopt_long(argc, argv, "", kOptions, nullptr)) != -1;) {
    switch (flag) {
      case 'a':
        if (!parse_address(optarg, options)) usage("--address: not understood");
        break;
      case 'c':
        options.clients = static_cast<unsigned>(std::clamp(std::atoi(optarg), 1, 512));
        break;
      case 'k':
        options.keepalive = true;
        break;
      case 'e':
        options.echo = true;
        break;
      case 'p':
        options.path = optarg;
        break;
      case 't':
        options.timeout_ms = std::atol(optarg);
        break;
      case 's':
        options.seconds = std::atof(optarg);
        break;
      case 'u':
        options.pause_us = std::atol(optarg);
        break;
      default:
        usage("wrong option");
    }
  }
  if (options.address_size == 0) usage("--address is missing");
  return options;
}

bool iequal(std::string_view a, std::string_view b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](char x, char y) {
           return (x | 0x20) == (y | 0x20);
         });
}

// Fit to stand in a JSON string as it is.
std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return c < 0x20 || c == 0x7f || c == '"' || c == '\\'; }, '?');
  return text;
}

// What is known of an answer whose header is complete.
struct Header {
  int status = 0;
  std::size_t size = 0;  // of the header
  long length = -1;      // of the body; -1: until the connection closes
  bool chunked = false;
  bool close = false;
};

Header parse_header(std::string_view text, std::size_t size) {
  Header header;
  header.size = size;
  if (text.size() > 12 && text.starts_with("HTTP/1.")) header.status = std::atoi(text.data() + 9);
  header.close = text.size() > 8 && text[7] == '0';
  std::string_view rest = text.substr(0, size);
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find("\r\n"));
    rest.remove_prefix(std::min(rest.size(), line.size() + 2));
    const auto colon = line.find(':');
    if (colon == std::string_view::npos) continue;
    std::string_view value = line.substr(colon + 1);
    value.remove_prefix(std::min(value.find_first_not_of(' '), value.size()));
    const std::string_view name = line.substr(0, colon);
    if (iequal(name, "content-length")) header.length = std::atol(std::string(value).c_str());
    if (iequal(name, "transfer-encoding")) header.chunked = iequal(value, "chunked");
    if (iequal(name, "connection")) header.close = iequal(value, "close");
  }
  return header;
}

class Client {
 public:
  Client(const Options& options, unsigned number) : options_(options), number_(number) {}
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client() { disconnect(); }

  void run() {
    while (!stopping) {
      const auto begin = Clock::now();
      const std::uint64_t before = tally_.ok;
      ++tally_.sent;
      request();
      if (tally_.ok > before) {
        const auto took =
            std::chrono::duration_cast<std::chrono::microseconds>(Clock::now() - begin);
        tally_.latencies.push_back(static_cast<std::uint32_t>(took.count()));
      }
      if (tally_.sent == 1) ++under_way;
      if (options_.pause_us > 0) pause();
    }
  }

  [[nodiscard]] const Tally& tally() const { return tally_; }

 private:
  void pause() const {
    const timespec wait{options_.pause_us / 1'000'000, options_.pause_us % 1'000'000 * 1000};
    ::pselect(0, nullptr, nullptr, nullptr, &wait, nullptr);
  }

  void disconnect() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }

  void fail(Kind kind, const std::string& what) {
    ++tally_.failed[kind];
    if (tally_.first.empty()) tally_.first = printable(what);
    disconnect();
  }

  void fail_with_errno(const char* what) {
    const int error = errno;
    Kind kind = kOther;
    if (error == ECONNREFUSED) kind = kRefused;
    if (error == ECONNRESET || error == EPIPE) kind = kReset;
    if (error == EAGAIN || error == EINPROGRESS || error == ETIMEDOUT) kind = kTimeout;
    fail(kind, std::string(what) + ": " + std::strerror(error));
  }

  bool connect() {
    fd_ = ::socket(options_.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    const timeval limit{options_.timeout_ms / 1000, options_.timeout_ms % 1000 * 1000};
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    ::setsockopt(fd_, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    if (::connect(fd_, reinterpret_cast<const sockaddr*>(&options_.address),
                  options_.address_size) == 0) {
      return true;
    }
    fail_with_errno("connect");
    return false;
  }

  void request() {
    if (fd_ < 0 && !connect()) return;
    const std::string body =
        options_.echo ? std::to_string(number_) + "-" + std::to_string(tally_.sent) : "";
    std::string text = options_.echo ? "POST /echo" : "GET " + options_.path;
    text += " HTTP/1.1\r\nHost: test\r\n";
    text += options_.keepalive ? "" : "Connection: close\r\n";
    if (options_.echo) text += "Content-Length: " + std::to_string(body.size()) + "\r\n";
    text += "\r\n" + body;
    if (::send(fd_, text.data(), text.size(), MSG_NOSIGNAL) < 0) return fail_with_errno("send");
    receive(body);
  }

  void receive(const std::string& expected) {
    std::string text;
    Header header;
    while (true) {
      if (header.size == 0) {
        const auto end = text.find("\r\n\r\n");
        if (end != std::string::npos) header = parse_header(text, end + 4);
      }
      if (header.size > 0 && complete(text, header)) break;
      std::array<char, 16384> piece{};
      const ssize_t size = ::recv(fd_, piece.data(), piece.size(), 0);
      if (size < 0 && errno == EINTR) continue;
      if (size < 0) return fail_with_errno("receive");
      if (size == 0) {
        const bool whole = header.size > 0 && header.length < 0 && !header.chunked;
        if (whole) break;
        return fail(kClosed, "closed after " + std::to_string(text.size()) + " bytes of an answer");
      }
      text.append(piece.data(), static_cast<std::size_t>(size));
    }
    if (header.status != 200) return fail(kBadStatus, "status " + std::to_string(header.status));
    if (options_.echo && text.substr(header.size) != expected) {
      return fail(kWrongBody, "sent '" + expected + "', got '" + text.substr(header.size) + "'");
    }
    ++tally_.ok;
    if (!options_.keepalive || header.close || header.length < 0) disconnect();
  }

  static bool complete(const std::string& text, const Header& header) {
    if (header.chunked) return text.ends_with("0\r\n\r\n");
    return header.length >= 0 &&
           text.size() >= header.size + static_cast<std::size_t>(header.length);
  }

  const Options& options_;
  unsigned number_;
  int fd_ = -1;
  Tally tally_;
};

Tally sum(const std::vector<std::unique_ptr<Client>>& clients) {
  Tally all;
  for (const auto& client : clients) {
    const Tally& one = client->tally();
    all.sent += one.sent;
    all.ok += one.ok;
    for (std::size_t kind = 0; kind < kKinds; ++kind) all.failed[kind] += one.failed[kind];
    if (all.first.empty()) all.first = one.first;
    all.latencies.insert(all.latencies.end(), one.latencies.begin(), one.latencies.end());
  }
  std::sort(all.latencies.begin(), all.latencies.end());
  return all;
}

void print(const Tally& all) {
  std::uint64_t lost = 0;
  for (const std::uint64_t count : all.failed) lost += count;
  std::printf(R"({"sent": %lu, "ok": %lu, "lost": %lu, "failed": {)", all.sent, all.ok, lost);
  const char* comma = "";
  for (std::size_t kind = 0; kind < kKinds; ++kind) {
    if (all.failed[kind] == 0) continue;
    std::printf(R"(%s"%s": %lu)", comma, kKindNames[kind], all.failed[kind]);
    comma = ", ";
  }
  std::printf(R"(}, "first": "%s", "milliseconds": {)", all.first.c_str());
  comma = "";
  for (const auto& [name, share] : {std::pair{"p50", 0.5}, {"p99", 0.99}, {"max", 1.0}}) {
    const auto size = all.latencies.size();
    const auto at = size == 0 ? 0 : static_cast<std::size_t>(share * static_cast<double>(size - 1));
    std::printf(R"(%s"%s": %.3f)", comma, name, size == 0 ? 0 : all.latencies[at] / 1000.0);
    comma = ", ";
  }
  std::printf("}}\n");
}

// The main thread alone takes signals: it waits for one, or for the end of the time.
void wait_for_the_end(const Options& options, const sigset_t& signals) {
  const auto end = Clock::now() + std::chrono::duration<double>(options.seconds);
  bool told = false;
  while (options.seconds <= 0 || Clock::now() < end) {
    if (!told && under_way == options.clients) {
      std::puts("running");
      std::fflush(stdout);
      told = true;
    }
    const timespec turn{0, 5'000'000};
    if (::sigtimedwait(&signals, nullptr, &turn) > 0) return;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const Options options = parse(argc, argv);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  ::sigprocmask(SIG_BLOCK, &signals, nullptr);
  std::vector<std::unique_ptr<Client>> clients;
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < options.clients; ++i) {
    clients.push_back(std::make_unique<Client>(options, i));
    threads.emplace_back([client = clients.back().get()] { client->run(); });
  }
  wait_for_the_end(options, signals);
  stopping = true;
  for (std::thread& thread : threads) thread.join();
  print(sum(clients));
  return 0;
}
