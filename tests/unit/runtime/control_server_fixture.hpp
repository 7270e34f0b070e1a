// A control server on a thread of its own, and clients that can misbehave, for its tests.
#pragma once

#include <doctest/doctest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <future>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "control/routes.hpp"
#include "runtime/control_server.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {

using namespace std::chrono_literals;
using Clock = std::chrono::steady_clock;

inline constexpr auto kPatience = 10s;

// Listens on an address that the kernel chose (no file to clean up).
class Listening {
 public:
  Listening() : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)) {
    address_.sun_family = AF_UNIX;
    size_ = sizeof(sa_family_t);
    REQUIRE(bind(fd_.get(), reinterpret_cast<sockaddr*>(&address_), size_) == 0);
    size_ = sizeof address_;
    REQUIRE(getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&address_), &size_) == 0);
    REQUIRE(listen(fd_.get(), 512) == 0);
  }
  [[nodiscard]] int fd() const { return fd_.get(); }
  bool reach(int client) const {
    return connect(client, reinterpret_cast<const sockaddr*>(&address_), size_) == 0;
  }

 private:
  UniqueFd fd_;
  sockaddr_un address_{};
  socklen_t size_ = 0;
};

struct Reply {
  int status = 0;
  std::string head;
  std::string body;
};

// A client that can misbehave. Every wait ends after `kPatience`.
class Client {
 public:
  Client() : fd_(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    const timeval patience{std::chrono::seconds(kPatience).count(), 0};
    setsockopt(fd_.get(), SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd_.get(), SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  }
  explicit Client(const Listening& server) : Client() { REQUIRE(server.reach(fd_.get())); }

  [[nodiscard]] int fd() const { return fd_.get(); }
  bool send(std::string_view text) {
    while (!text.empty()) {
      const ssize_t sent = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
      if (sent < 0) return false;
      text.remove_prefix(static_cast<std::size_t>(sent));
    }
    return true;
  }
  void half_close() { shutdown(fd_.get(), SHUT_WR); }
  void close() { fd_.reset(); }

  // Reads until `mark` was seen and returns all up to its end; less if the server closed.
  std::string read_to(std::string_view mark) {
    while (true) {
      if (const auto at = buffer_.find(mark); at != std::string::npos)
        return take(at + mark.size());
      if (!fill()) return take(buffer_.size());
    }
  }
  std::string read_bytes(std::size_t size) {
    while (buffer_.size() < size && fill()) {
    }
    return take(std::min(size, buffer_.size()));
  }
  std::string read_all() {
    while (fill()) {
    }
    return take(buffer_.size());
  }
  // The server has closed, and sent nothing more.
  bool at_end() { return read_all().empty() && !timed_out_; }

  Reply reply(bool head_only = false) {
    Reply reply;
    reply.head = read_to("\r\n\r\n");
    if (reply.head.size() > 12) reply.status = std::atoi(reply.head.c_str() + 9);
    const auto at = reply.head.find("Content-Length: ");
    if (at != std::string::npos && !head_only)
      reply.body = read_bytes(std::stoul(reply.head.substr(at + 16)));
    return reply;
  }
  Reply get(const std::string& target) {
    send("GET " + target + " HTTP/1.1\r\nHost: ostler\r\n\r\n");
    return reply();
  }
  Reply post(const std::string& target, const std::string& body = "") {
    send("POST " + target + " HTTP/1.1\r\nHost: ostler\r\nContent-Length: " +
         std::to_string(body.size()) + "\r\n\r\n" + body);
    return reply();
  }
  // The payload of the next chunk; "" is the last one, or the end.
  std::string chunk() {
    const std::string size = read_to("\r\n");
    if (size.empty()) return {};
    const std::size_t length = std::stoul(size, nullptr, 16);
    std::string payload = read_bytes(length);
    read_bytes(2);
    return payload;
  }

 private:
  std::string take(std::size_t size) {
    std::string result = buffer_.substr(0, size);
    buffer_.erase(0, size);
    return result;
  }
  bool fill() {
    char bytes[65536];
    const ssize_t got = recv(fd_.get(), bytes, sizeof bytes, 0);
    if (got < 0 && errno == EAGAIN) timed_out_ = true;
    if (got <= 0) return false;
    buffer_.append(bytes, static_cast<std::size_t>(got));
    return true;
  }

  UniqueFd fd_;
  std::string buffer_;
  bool timed_out_ = false;
};

// A server on a thread of its own, for a manager that answers at once or when the test says so.
class Running {
 public:
  // Runs `task` on the server's thread and waits for it.
  template <class Task>
  auto on_server(Task task) {
    std::packaged_task<decltype(task())()> packaged(std::move(task));
    auto result = packaged.get_future();
    boost::asio::post(context_, [&] { packaged(); });
    return result.get();
  }

  explicit Running(const ControlLimits& limits = {}) {
    server_.emplace(
        context_, listening_.fd(),
        [this](const control::Command& command, const Peer& peer, ControlServer::Respond respond) {
          handle(command, peer, std::move(respond));
        },
        limits);
    thread_ = std::thread([this] { context_.run(); });
  }
  ~Running() {
    on_server([this] {
      waiting_.clear();
      server_.reset();
    });
    work_.reset();
    thread_.join();
  }
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;

  const Listening& socket() const { return listening_; }
  std::size_t sessions() {
    return on_server([this] { return server_->sessions(); });
  }
  bool sessions_become(std::size_t wanted) {
    return becomes([&] { return sessions() == wanted; });
  }
  // Commands that wait for their answer.
  bool waiting_become(std::size_t wanted) {
    return becomes([&] { return on_server([this] { return waiting_.size(); }) == wanted; });
  }
  void answer_all(int status) {
    on_server([this, status] {
      const auto waiting = std::exchange(waiting_, {});
      for (const auto& respond : waiting) respond({status, "application/json", "{}\n"});
    });
  }
  void drop_all() {
    on_server([this] { waiting_.clear(); });
  }
  void publish(const std::string& name, std::optional<std::string> pool = {},
               const std::string& text = "") {
    on_server([&] {
      control::EventView event;
      event.time = std::chrono::system_clock::now();
      event.event = name;
      event.pool = std::move(pool);
      if (!text.empty()) event.members = {{"text", text}};
      server_->publish(event);
    });
  }
  void shut_down(std::function<void()> done = {}) {
    on_server([&] { server_->shut_down(std::move(done)); });
  }
  Peer last_peer() {
    return on_server([this] { return peer_; });
  }

 private:
  template <class Condition>
  static bool becomes(Condition condition) {
    for (const auto end = Clock::now() + kPatience; Clock::now() < end;) {
      if (condition()) return true;
      poll(nullptr, 0, 1);
    }
    return false;
  }

  // Reloads wait; the rest is answered at once.
  void handle(const control::Command& command, const Peer& peer, ControlServer::Respond respond) {
    peer_ = peer;
    if (std::holds_alternative<control::Reload>(command)) {
      waiting_.push_back(std::move(respond));
      return;
    }
    if (std::holds_alternative<control::Restart>(command)) return;  // forgets to answer
    if (std::holds_alternative<control::GetConfig>(command)) throw std::runtime_error("no config");
    if (const auto* pool = std::get_if<control::GetPool>(&command))
      return respond({200, "text/plain", std::string(pool->name == "huge" ? 8'000'000 : 3, 'x')});
    respond({200, "application/json", control::describe(command) + "\n"});
    respond({500, "application/json", "a second answer\n"});
  }

  Listening listening_;
  boost::asio::io_context context_;
  boost::asio::executor_work_guard<boost::asio::io_context::executor_type> work_{
      context_.get_executor()};
  std::optional<ControlServer> server_;
  std::vector<ControlServer::Respond> waiting_;
  Peer peer_;
  std::thread thread_;
};

inline ControlLimits quick() {
  ControlLimits limits;
  limits.read = 100ms;
  limits.idle = 150ms;
  limits.write = 200ms;
  limits.linger = 100ms;
  limits.accept_again = 10ms;
  return limits;
}

}  // namespace ostler::runtime
