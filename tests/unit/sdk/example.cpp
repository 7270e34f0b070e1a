#include "example.hpp"

#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <fstream>
#include <stdexcept>
#include <thread>
#include <utility>

namespace ostler::test {
namespace {

constexpr int kBacklog = 512;

struct Address {
  sockaddr_storage storage{};
  socklen_t size = sizeof(sockaddr_storage);
  sockaddr* get() { return reinterpret_cast<sockaddr*>(&storage); }
};

template <class Kind>
Address address_of(const Kind& kind) {
  Address address;
  std::copy_n(reinterpret_cast<const char*>(&kind), sizeof kind,
              reinterpret_cast<char*>(&address.storage));
  address.size = sizeof kind;
  return address;
}

Address loopback() {
  sockaddr_in in{};
  in.sin_family = AF_INET;
  in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address_of(in);
}

Address loopback6() {
  sockaddr_in6 in6{};
  in6.sin6_family = AF_INET6;
  in6.sin6_addr = in6addr_loopback;
  return address_of(in6);
}

Address unix_path(const std::string& path) {
  sockaddr_un un{};
  un.sun_family = AF_UNIX;
  std::copy(path.begin(), path.end(), un.sun_path);
  return address_of(un);
}

int domain_of(Listener::Family family) {
  if (family == Listener::Family::kUnix) return AF_UNIX;
  return family == Listener::Family::kTcp ? AF_INET : AF_INET6;
}

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return text;
}

Reply parse_head(const std::string& head) {
  Reply reply;
  reply.version = head.substr(0, head.find(' '));
  reply.status = std::stoi(head.substr(head.find(' ') + 1, 3));
  for (std::size_t line = head.find("\r\n"); line + 2 < head.size();) {
    const std::size_t start = line + 2;
    line = head.find("\r\n", start);
    const std::string field = head.substr(start, line - start);
    const std::size_t colon = field.find(": ");
    if (colon != std::string::npos) {
      reply.fields[lower(field.substr(0, colon))] = field.substr(colon + 2);
    }
  }
  return reply;
}

}  // namespace

Listener::Listener(Family family) : family_(family) {
  socket_ = Fd(checked(::socket(domain_of(family), SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
                       "make a listener"));
  Address address = loopback();
  if (family == Family::kTcp6) address = loopback6();
  if (family == Family::kUnix) address = unix_path(scratch_.file("http"));
  checked(::bind(fd(), address.get(), address.size), "bind a listener");
  checked(::listen(fd(), kBacklog), "listen");
}

Fd Listener::connect() const {
  Fd client(checked(::socket(domain_of(family_), SOCK_STREAM | SOCK_CLOEXEC, 0), "make a client"));
  const timeval limit{.tv_sec = kPatience.count(), .tv_usec = 0};
  checked(::setsockopt(client.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), "set a limit");
  Address address;
  checked(::getsockname(fd(), address.get(), &address.size), "ask for the listener's address");
  checked(::connect(client.get(), address.get(), address.size), "connect");
  return client;
}

Example::Example(const Listener& listener, std::vector<std::string> flags,
                 const std::string& settings, const std::string& program)
    : manager_(std::make_unique<NotifyEnd>(scratch_.file("notify"))) {
  flags.insert(flags.begin(), program);
  process_ = std::make_unique<Process>(std::vector<int>{listener.fd()}, [&]() -> int {
    set_environment({{"LISTEN_PID", "self"},
                     {"LISTEN_FDS", "1"},
                     {"LISTEN_FDNAMES", "http"},
                     {"NOTIFY_SOCKET", scratch_.file("notify")},
                     {"OSTLER_POOL", "web"},
                     {"OSTLER_SLOT", "3"},
                     {"OSTLER_GENERATION", "7"},
                     {"OSTLER_WORKER_OPTIONS", settings}});
    std::vector<char*> argv;
    for (auto& flag : flags) argv.push_back(flag.data());
    argv.push_back(nullptr);
    return checked(::execv(argv[0], argv.data()), "execute " + flags[0]);
  });
  manager_->expect("READY=1");
}

void Example::stop() {
  process_->signal(SIGTERM);
  manager_->expect("STOPPING=1");
}

long Example::context_switches_when_asleep() const {
  // An answer is with the client before the worker sleeps again.
  for (long last = -1;;
       std::this_thread::sleep_for(std::chrono::milliseconds(50))) {  // NOLINT(sleep): looks
    std::ifstream file("/proc/" + std::to_string(pid()) + "/status");
    long sum = 0;
    for (std::string line; std::getline(file, line);) {
      if (line.find("ctxt_switches") != std::string::npos) {
        sum += std::stol(line.substr(line.find('\t')));
      }
    }
    if (sum == last) return sum;
    last = sum;
  }
}

bool Reply::keeps_alive() const {
  const auto field = fields.find("connection");
  const std::string value = field == fields.end() ? "" : lower(field->second);
  return version == "HTTP/1.1" ? value != "close" : value == "keep-alive";
}

void Client::send(const std::string& text) {
  for (std::size_t sent = 0; sent < text.size();) {
    sent += static_cast<std::size_t>(
        checked(::send(socket_.get(), text.data() + sent, text.size() - sent, MSG_NOSIGNAL),
                "send a request"));
  }
}

bool Client::read_more() {
  std::array<char, 4096> piece;
  const ssize_t size = ::recv(socket_.get(), piece.data(), piece.size(), 0);
  if (size < 0 && errno == ECONNRESET) {
    reset_ = true;
    return false;
  }
  buffer_.append(piece.data(), static_cast<std::size_t>(checked(size, "receive an answer")));
  return size > 0;
}

std::optional<Reply> Client::receive(bool has_body) {
  std::size_t end = 0;
  while ((end = buffer_.find("\r\n\r\n")) == std::string::npos) {
    if (read_more()) continue;
    if (buffer_.empty()) return std::nullopt;
    throw std::runtime_error("the connection ended inside an answer: " + buffer_);
  }
  Reply reply = parse_head(buffer_.substr(0, end + 2));
  buffer_.erase(0, end + 4);
  if (!has_body) return reply;
  if (const auto length = reply.fields.find("content-length"); length != reply.fields.end()) {
    reply.body = take(std::stoul(length->second));
  } else if (reply.fields.contains("transfer-encoding")) {
    reply.body = take_chunks();
  } else if (!reply.keeps_alive() && reply.status >= 200 && reply.status != 204) {
    while (read_more()) {
    }
    reply.body = std::exchange(buffer_, "");
  }
  return reply;
}

std::string Client::take(std::size_t size) {
  while (buffer_.size() < size) {
    if (!read_more()) throw std::runtime_error("the connection ended inside a body");
  }
  std::string text = buffer_.substr(0, size);
  buffer_.erase(0, size);
  return text;
}

std::string Client::take_chunks() {
  std::string body;
  while (true) {
    std::size_t end = 0;
    while ((end = buffer_.find("\r\n")) == std::string::npos) {
      if (!read_more()) throw std::runtime_error("the connection ended inside a body");
    }
    const std::size_t size = std::stoul(take(end + 2), nullptr, 16);
    body += take(size);
    if (take(2) != "\r\n") throw std::runtime_error("a chunk does not end");
    if (size == 0) return body;
  }
}

Reply Client::ask(const std::string& text) {
  send(text);
  auto reply = receive();
  if (!reply) throw std::runtime_error("no answer to: " + text);
  return *reply;
}

std::string Client::receive_line() {
  std::size_t end = 0;
  while ((end = buffer_.find('\n')) == std::string::npos) {
    if (!read_more()) throw std::runtime_error("the connection ended inside a line: " + buffer_);
  }
  return take(end + 1);
}

bool Client::closed_in_order() {
  if (read_more() || !buffer_.empty()) throw std::runtime_error("more data came: " + buffer_);
  socket_ = Fd();
  return !reset_;
}

bool Client::hears_nothing_for(std::chrono::milliseconds time) const {
  pollfd input{socket_.get(), POLLIN, 0};
  return buffer_.empty() && ::poll(&input, 1, static_cast<int>(time.count())) == 0;
}

void Client::half_close() {
  checked(::shutdown(socket_.get(), SHUT_WR), "half-close");
}

std::string get(const std::string& path, const std::string& lines) {
  return "GET " + path + " HTTP/1.1\r\nHost: test\r\n" + lines + "\r\n";
}

std::string post(const std::string& path, const std::string& body, const std::string& lines) {
  return "POST " + path +
         " HTTP/1.1\r\nHost: test\r\nContent-Length: " + std::to_string(body.size()) + "\r\n" +
         lines + "\r\n" + body;
}

}  // namespace ostler::test
