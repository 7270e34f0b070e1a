#include "obedient.hpp"

#include <poll.h>
#include <sys/socket.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <optional>
#include <stdexcept>

#include <boost/asio/buffer.hpp>
#include <boost/asio/read_until.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>

// A name to be found in a stack.
extern "C" [[gnu::noinline]] void ostler_test_hangs_here();
void ostler_test_hangs_here() {
  std::fputs("hanging\n", stderr);
  while (true) ::poll(nullptr, 0, -1);
}

namespace ostler::test {
namespace {

namespace asio = boost::asio;

class Obedience {
 public:
  explicit Obedience(connection& peer) : peer_(peer) {}

  std::string obey(const std::string& line) {
    const std::string word = line.substr(0, line.find(' '));
    const std::string rest = word.size() < line.size() ? line.substr(word.size() + 1) : "";
    if (word == "echo") return rest;
    if (word == "begin") request_.emplace(Begin{peer_, rest});
    if (word == "end") request_.reset();
    if (word == "progress") request_->mark.progress();
    if (word == "extend") request_->mark.extend(std::chrono::milliseconds(std::stoi(rest)));
    if (word == "stop?") return peer_.stop_token().stop_requested() ? "stop" : "go";
    if (word == "private?") return peer_.is_private() ? "private" : "public";
    if (word == "throw") throw std::runtime_error("as it was told");
    if (word == "hang") ostler_test_hangs_here();
    return "ok";
  }

 private:
  struct Begin {
    connection& peer;
    std::string what;
  };
  struct Marked {
    explicit Marked(const Begin& begin) : mark(begin.peer.work(begin.what)) {}
    in_flight mark;
  };
  connection& peer_;
  std::optional<Marked> request_;
};

// Whoever waits for a line is woken up by the end of them.
auto when_draining(connection& peer) {
  return std::stop_callback(peer.stop_token(), [&peer] {
    boost::system::error_code ignored;
    peer.socket().shutdown(asio::socket_base::shutdown_receive, ignored);
  });
}

std::string take_line(std::string& buffer, std::size_t size) {
  std::string line = buffer.substr(0, size - 1);
  buffer.erase(0, size);
  return line;
}

asio::awaitable<void> serve_lines(connection& peer) {
  Obedience obedience(peer);
  const auto waker = when_draining(peer);
  std::string buffer;
  while (true) {
    boost::system::error_code error;
    const std::size_t size =
        co_await asio::async_read_until(peer.socket(), asio::dynamic_buffer(buffer), '\n',
                                        asio::redirect_error(asio::use_awaitable, error));
    std::string answer = "draining\n";
    if (!error) answer = obedience.obey(take_line(buffer, size)) + "\n";
    if (error && !peer.stop_token().stop_requested()) co_return;
    co_await asio::async_write(peer.socket(), asio::buffer(answer), asio::use_awaitable);
    if (error) co_return;
  }
}

void serve_lines_blocking(connection& peer) {
  Obedience obedience(peer);
  const auto waker = when_draining(peer);
  std::string buffer;
  while (true) {
    boost::system::error_code error;
    const std::size_t size =
        asio::read_until(peer.socket(), asio::dynamic_buffer(buffer), '\n', error);
    std::string answer = "draining\n";
    if (!error) answer = obedience.obey(take_line(buffer, size)) + "\n";
    if (error && !peer.stop_token().stop_requested()) return;
    asio::write(peer.socket(), asio::buffer(answer));
    if (error) return;
  }
}

}  // namespace

connection_handler obedient() {
  return serve_lines;
}

connection_handler obedient_and_blocking() {
  return serve_lines_blocking;
}

fake_manager_options obedient_worker(const std::string& class_name, const std::string& settings,
                                     const serve_options& options) {
  return {.body =
              [=] {
                return serve(class_name == "async" ? obedient() : obedient_and_blocking(), options);
              },
          .worker_options = "class=" + class_name + " " + settings};
}

void LineClient::send(const std::string& line) {
  const std::string text = line + "\n";
  checked(::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL), "send a line");
}

std::string LineClient::receive() {
  while (buffer_.find('\n') == std::string::npos) {
    std::array<char, 512> piece;
    const int size = checked(::recv(socket_.get(), piece.data(), piece.size(), 0), "receive");
    if (size == 0) return "(end)";
    buffer_.append(piece.data(), static_cast<std::size_t>(size));
  }
  return take_line(buffer_, buffer_.find('\n') + 1);
}

std::string LineClient::ask(const std::string& line) {
  send(line);
  return receive();
}

bool LineClient::hears_nothing_for(std::chrono::milliseconds time) const {
  pollfd input{socket_.get(), POLLIN, 0};
  return buffer_.empty() && ::poll(&input, 1, static_cast<int>(time.count())) == 0;
}

long context_switches(pid_t pid) {
  long sum = 0;
  for (const auto& task :
       std::filesystem::directory_iterator("/proc/" + std::to_string(pid) + "/task")) {
    std::ifstream file(task.path() / "status");
    for (std::string line; std::getline(file, line);) {
      if (line.find("ctxt_switches") != std::string::npos) {
        sum += std::stol(line.substr(line.find('\t')));
      }
    }
  }
  return sum;
}

std::size_t descriptors(pid_t pid) {
  const std::filesystem::directory_iterator all("/proc/" + std::to_string(pid) + "/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

}  // namespace ostler::test
