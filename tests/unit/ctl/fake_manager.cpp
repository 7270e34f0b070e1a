#include "fake_manager.hpp"

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/asio/write.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <sstream>
#include <stdexcept>
#include <utility>

#include "ctl/arguments.hpp"
#include "ctl/commands.hpp"
#include "ctl/render.hpp"

namespace ostler::ctl {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using asio::local::stream_protocol;

void write(FakeManager::Socket& socket, const std::string& bytes) {
  boost::system::error_code ignored;  // a client may have left
  asio::write(socket, asio::buffer(bytes), ignored);
}

std::string chunk(const std::string& text) {
  std::ostringstream result;
  result << std::hex << text.size() << "\r\n" << text << "\r\n";
  return result.str();
}

constexpr const char* kStreamHead =
    "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";

class Pipe {
 public:
  Pipe() {
    if (pipe2(ends_.data(), O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  }
  ~Pipe() {
    for (const int end : ends_)
      if (end >= 0) close(end);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  [[nodiscard]] int reader() const { return ends_[0]; }
  [[nodiscard]] int writer() const { return ends_[1]; }
  void close_writer() { close(std::exchange(ends_[1], -1)); }

 private:
  std::array<int, 2> ends_{-1, -1};
};

// Both to their ends. What takes longer than a minute ends with the test.
void read_both(const Pipe& out, const Pipe& err, Result& result) {
  std::array<pollfd, 2> polled{pollfd{out.reader(), POLLIN, 0}, pollfd{err.reader(), POLLIN, 0}};
  const std::array<std::string*, 2> texts{&result.out, &result.err};
  while (polled[0].fd >= 0 || polled[1].fd >= 0) {
    if (poll(polled.data(), polled.size(), 60000) <= 0)
      throw std::runtime_error("no end of output");
    for (std::size_t i = 0; i < 2; ++i) {
      if (polled.at(i).revents == 0) continue;
      std::array<char, 4096> buffer{};
      const ssize_t count = read(polled.at(i).fd, buffer.data(), buffer.size());
      if (count <= 0) {
        polled.at(i).fd = -1;
      } else {
        texts.at(i)->append(buffer.data(), static_cast<std::size_t>(count));
      }
    }
  }
}

std::vector<char*> pointers(std::vector<std::string>& words) {
  std::vector<char*> result;
  result.reserve(words.size() + 1);
  for (std::string& word : words) result.push_back(word.data());
  result.push_back(nullptr);
  return result;
}

}  // namespace

TemporaryFolder::TemporaryFolder()
    : path_((std::filesystem::temp_directory_path() / "ostlerctl-XXXXXX").string()) {
  if (mkdtemp(path_.data()) == nullptr) throw std::runtime_error("mkdtemp " + path_);
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

FakeManager::FakeManager(std::map<std::string, Handler> handlers)
    : handlers_(std::move(handlers)),
      acceptor_(io_, stream_protocol::endpoint(path_)),
      thread_([this] { serve(); }) {}

FakeManager::~FakeManager() {
  over_ = true;
  Socket wake(io_);
  boost::system::error_code ignored;  // it may have left already
  wake.connect(stream_protocol::endpoint(path_), ignored);
  thread_.join();
}

std::vector<std::string> FakeManager::requests() {
  const std::lock_guard lock(mutex_);
  return requests_;
}

void FakeManager::serve() {
  while (!over_) {
    Socket socket = acceptor_.accept();
    if (!over_) take(std::move(socket));
  }
  leave();
}

void FakeManager::take(Socket socket) {
  boost::beast::flat_buffer buffer;
  http::request<http::string_body> request;
  boost::system::error_code error;
  http::read(socket, buffer, request, error);
  if (error) return;
  std::string key = std::string(request.method_string()) + " " + std::string(request.target());
  {
    const std::lock_guard lock(mutex_);
    requests_.push_back(key + (request.body().empty() ? "" : " " + request.body()));
  }
  const auto found = handlers_.find(key);
  const auto missing = problem(404, "Nothing here", "no endpoint '" + key + "'");
  (found == handlers_.end() ? missing : found->second)(*this, socket);
}

void FakeManager::tell(const std::string& line) {
  for (Socket& socket : streams_) write(socket, chunk(line + "\n"));
}

void FakeManager::end_streams(bool properly) {
  if (properly)
    for (Socket& socket : streams_) write(socket, "0\r\n\r\n");
  streams_.clear();
}

void FakeManager::leave() {
  over_ = true;
  boost::system::error_code ignored;
  acceptor_.close(ignored);
  unlink(path_.c_str());
  streams_.clear();
  silent_.clear();
}

void FakeManager::keep(Socket& socket, bool is_stream) {
  (is_stream ? streams_ : silent_).push_back(std::move(socket));
}

FakeManager::Handler answer(unsigned status, const std::string& body, const std::string& type) {
  return [=](FakeManager&, FakeManager::Socket& socket) {
    http::response<http::string_body> response(static_cast<http::status>(status), 11);
    response.set(http::field::content_type, type);
    response.keep_alive(false);
    response.body() = body;
    response.prepare_payload();
    boost::system::error_code ignored;
    http::write(socket, response, ignored);
  };
}

FakeManager::Handler problem(unsigned status, const std::string& title, const std::string& detail) {
  const Json document = {
      {"type", "about:blank"}, {"title", title}, {"status", status}, {"detail", detail}};
  return answer(status, document.dump(), "application/problem+json");
}

FakeManager::Handler raw(const std::string& bytes) {
  return [=](FakeManager&, FakeManager::Socket& socket) { write(socket, bytes); };
}

FakeManager::Handler silence() {
  return [](FakeManager& manager, FakeManager::Socket& socket) { manager.keep(socket, false); };
}

FakeManager::Handler stream(const std::vector<std::string>& first) {
  return [=](FakeManager& manager, FakeManager::Socket& socket) {
    write(socket, kStreamHead);
    for (const std::string& line : first) write(socket, chunk(line + "\n"));
    manager.keep(socket, true);
  };
}

FakeManager::Handler lines(const std::vector<std::string>& all) {
  return [=](FakeManager&, FakeManager::Socket& socket) {
    write(socket, kStreamHead);
    for (const std::string& line : all) write(socket, chunk(line + "\n"));
    write(socket, "0\r\n\r\n");
  };
}

FakeManager::Handler all_of(const std::vector<FakeManager::Handler>& handlers) {
  return [=](FakeManager& manager, FakeManager::Socket& socket) {
    for (const auto& handler : handlers) handler(manager, socket);
  };
}

FakeManager::Handler events(const std::vector<std::string>& all) {
  return [=](FakeManager& manager, FakeManager::Socket&) {
    for (const std::string& line : all) manager.tell(line);
  };
}

Result run_at(const std::string& socket, std::vector<std::string> words,
              std::chrono::milliseconds patience) {
  words.insert(words.begin(), {"--socket", socket});
  auto parsed = parse(std::move(words));
  if (const auto* said = std::get_if<Answer>(&parsed))
    return {said->exit_code, said->out, said->err};
  auto options = std::get<Options>(parsed);
  options.patience = patience;
  std::ostringstream out;
  std::ostringstream err;
  const int code = run(options, {out, err, false});
  return {code, out.str(), err.str()};
}

Result run_program(std::vector<std::string> words, std::vector<std::string> environment,
                   const std::function<void(pid_t)>& started) {
  Pipe out;
  Pipe err;
  words.insert(words.begin(), OSTLERCTL);
  environment.emplace_back("PATH=/usr/bin:/bin");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out.writer(), STDOUT_FILENO);
  posix_spawn_file_actions_adddup2(&actions, err.writer(), STDERR_FILENO);
  pid_t pid = 0;
  const int error = posix_spawn(&pid, OSTLERCTL, &actions, nullptr, pointers(words).data(),
                                pointers(environment).data());
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) throw std::runtime_error("cannot start " OSTLERCTL);
  out.close_writer();
  err.close_writer();
  if (started) started(pid);
  Result result;
  read_both(out, err, result);
  int status = 0;
  waitpid(pid, &status, 0);
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
  return result;
}

}  // namespace ostler::ctl
