// A control API that says what a test wants it to say, on a unix socket in a directory of its own;
// and two ways to run ostlerctl against it.
//
// One thread takes one connection after the other, reads its request, notes it, and lets the test's
// handler for it answer. A stream of events is kept open and written to by later handlers: what a
// client sees is in one order, always the same.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <boost/asio/io_context.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <chrono>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "ctl/session.hpp"

namespace ostler::ctl {

class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

class FakeManager {
 public:
  using Socket = boost::asio::local::stream_protocol::socket;
  using Handler = std::function<void(FakeManager&, Socket&)>;

  // `handlers` by method and target: "GET /v1/status". Without one: 404 and a problem document.
  explicit FakeManager(std::map<std::string, Handler> handlers);
  ~FakeManager();
  FakeManager(const FakeManager&) = delete;
  FakeManager& operator=(const FakeManager&) = delete;

  [[nodiscard]] const std::string& socket() const { return path_; }
  // Method, target and body of what was asked so far.
  std::vector<std::string> requests();

  // For handlers: to all streams that are open; the end of all of them; the end of the manager.
  void tell(const std::string& line);
  void end_streams(bool properly);
  void leave();
  // A connection that stays open: a stream of events, or one that never gets an answer.
  void keep(Socket& socket, bool stream);

 private:
  void serve();
  void take(Socket socket);

  TemporaryFolder folder_;
  std::string path_ = folder_.file("control.sock");
  std::map<std::string, Handler> handlers_;
  boost::asio::io_context io_;
  boost::asio::local::stream_protocol::acceptor acceptor_;
  std::vector<Socket> streams_;
  std::vector<Socket> silent_;
  std::mutex mutex_;
  std::vector<std::string> requests_;
  std::atomic<bool> over_ = false;
  std::thread thread_;
};

// Handlers.
FakeManager::Handler answer(unsigned status, const std::string& body,
                            const std::string& type = "application/json");
FakeManager::Handler problem(unsigned status, const std::string& title, const std::string& detail);
FakeManager::Handler raw(const std::string& bytes);  // then the connection ends
FakeManager::Handler silence();                      // never an answer
FakeManager::Handler stream(const std::vector<std::string>& first = {});
FakeManager::Handler lines(const std::vector<std::string>& all);
FakeManager::Handler all_of(const std::vector<FakeManager::Handler>& handlers);
FakeManager::Handler events(const std::vector<std::string>& all);  // to the streams

struct Result {
  int code = -1;
  std::string out;
  std::string err;
};

// In this process.
Result run_at(const std::string& socket, std::vector<std::string> words,
              std::chrono::milliseconds patience = std::chrono::seconds(20));
// The program itself, without OSTLER_SOCKET unless `environment` sets it. `started` gets its pid.
Result run_program(std::vector<std::string> words, std::vector<std::string> environment = {},
                   const std::function<void(pid_t)>& started = nullptr);

}  // namespace ostler::ctl
