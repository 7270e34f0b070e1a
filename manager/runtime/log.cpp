#include "runtime/log.hpp"

#include <poll.h>
#include <spdlog/sinks/sink.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <map>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/limits.hpp"
#include "runtime/open_file.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

// `log.format`. An atomic, because the log thread reads it.
std::atomic<bool> json_lines{false};

// Whether stderr is a stream to the journal, as sd-daemon(3) tells it: then a line begins with its
// priority, and the journal knows the time.
bool stderr_is_journal() {
  const char* const stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  return stream != nullptr && ::fstat(STDERR_FILENO, &status) == 0 &&
         stream == std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
}

void write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = ::write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0 && errno == EAGAIN) {  // whoever shares stderr made it non-blocking
      pollfd wait{fd, POLLOUT, 0};
      ::poll(&wait, 1, -1);
      continue;
    }
    if (written <= 0) return;  // a log that cannot be written has nobody to complain to
    data += written;
    size -= static_cast<std::size_t>(written);
  }
}

std::string formatted(const LogLine& line) {
  return json_lines ? json_line(line) : text_line(line);
}

class StderrOutput : public LogOutput {
 public:
  void write(const LogLine& line) override {
    const std::string text = journal_ ? journal_line(line) : formatted(line);
    write_all(STDERR_FILENO, text.data(), text.size());
  }

 private:
  // The journal knows the time.
  static std::string journal_line(const LogLine& line) {
    return "<" + std::to_string(priority(line.level)) + ">" +
           (json_lines ? json_line(line) : named_text(line) + "\n");
  }
  bool journal_ = stderr_is_journal();
};

std::optional<LogFileFault> open_log_file(const std::string& path, UniqueFd& file) {
  OpenedFile opened = open_own_file(path);
  if (!opened.fd) return LogFileFault{path, "open", std::move(opened.problem)};
  file = std::move(opened.fd);
  return std::nullopt;
}

// A file that is appended to and can be opened anew (after a rotation).
class FileOutput : public LogOutput {
 public:
  // `bare`: what a worker wrote and nothing else.
  FileOutput(std::string path, bool bare) : path_(std::move(path)), bare_(bare) {
    if (const auto fault = reopen()) throw LogFileError(fault->text());
  }
  // The file that was open stays so if there is a fault.
  std::optional<LogFileFault> reopen() { return open_log_file(path_, file_); }
  void write(const LogLine& line) override {
    const std::string text = bare_ ? line.text + "\n" : formatted(line);
    write_all(file_.get(), text.data(), text.size());
  }

 private:
  std::string path_;
  bool bare_;
  UniqueFd file_;
};

// One datagram a line.
class JournaldOutput : public LogOutput {
 public:
  JournaldOutput() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, "/run/systemd/journal/socket", sizeof address.sun_path - 1);
    if (!socket_ || ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address),
                              sizeof address) != 0) {
      throw std::runtime_error(std::string("connect ") + address.sun_path + ": " + reason(errno));
    }
  }
  void write(const LogLine& line) override {
    const std::string entry = journal_entry(line);
    static_cast<void>(::send(socket_.get(), entry.data(), entry.size(), MSG_NOSIGNAL));
  }

 private:
  UniqueFd socket_;
};

class SyslogOutput : public LogOutput {
 public:
  SyslogOutput() { ::openlog("ostlerd", LOG_PID, LOG_DAEMON); }
  void write(const LogLine& line) override {
    ::syslog(priority(line.level), "%s", named_text(line).c_str());
  }
};

// What the default logger writes to: has the log thread write.
class QueuedSink : public spdlog::sinks::sink {
 public:
  explicit QueuedSink(std::shared_ptr<LogQueue> queue) : queue_(std::move(queue)) {}
  void log(const spdlog::details::log_msg& message) override {
    const std::string text(message.payload.data(), message.payload.size());
    queue_->add({message.time, message.level, "", text, nullptr});
  }
  void flush() override {}
  void set_pattern(const std::string& /*pattern*/) override {}
  void set_formatter(std::unique_ptr<spdlog::formatter> /*formatter*/) override {}

 private:
  std::shared_ptr<LogQueue> queue_;
};

// Before what continues a line that was cut, but not in a file that holds bare lines.
constexpr auto kContinued = "… ";

// Files that are remembered before those that nobody writes any more are forgotten.
constexpr std::size_t kFilesKept = 64;

struct Logs {
  std::shared_ptr<LogQueue> queue;
  std::shared_ptr<LogOutput> output;
  spdlog::level::level_enum level = spdlog::level::info;
  std::map<std::string, std::weak_ptr<FileOutput>> files;
  std::size_t files_kept = kFilesKept;  // as many as there were after the last clearing
  std::shared_ptr<FileOutput> main_file;
};

Logs& logs() {
  static Logs instance;
  return instance;
}

std::shared_ptr<FileOutput> file_output(const std::string& path, bool bare) {
  // With a token for the generation in their names there are ever more of them.
  auto& files = logs().files;
  if (files.size() >= 2 * logs().files_kept) {
    std::erase_if(files, [](const auto& entry) { return entry.second.expired(); });
    logs().files_kept = std::max<std::size_t>(files.size(), kFilesKept);
  }
  auto& known = files[path];
  std::shared_ptr<FileOutput> output = known.lock();
  if (!output) {
    output = std::make_shared<FileOutput>(path, bare);
    known = output;
  }
  return output;
}

spdlog::level::level_enum level_of(config::LogLevel level) {
  switch (level) {
    case config::LogLevel::kTrace:
      return spdlog::level::trace;
    case config::LogLevel::kDebug:
      return spdlog::level::debug;
    case config::LogLevel::kInfo:
      return spdlog::level::info;
    case config::LogLevel::kWarning:
      return spdlog::level::warn;
    case config::LogLevel::kError:
      break;
  }
  return spdlog::level::err;
}

std::shared_ptr<LogOutput> make_output(const config::Log& log) {
  switch (log.output) {
    case config::LogOutput::kStderr:
      return std::make_shared<StderrOutput>();
    case config::LogOutput::kFile:
      return logs().main_file = file_output(log.path, false);
    case config::LogOutput::kJournald:
      return std::make_shared<JournaldOutput>();
    case config::LogOutput::kSyslog:
      return std::make_shared<SyslogOutput>();
  }
  return nullptr;
}

}  // namespace

void open_log(const config::Log& log) {
  Logs& all = logs();
  all.output = make_output(log);
  all.queue = std::make_shared<LogQueue>(all.output);
  std::thread([queue = all.queue] { queue->write(); }).detach();
  spdlog::set_default_logger(
      std::make_shared<spdlog::logger>("", std::make_shared<QueuedSink>(all.queue)));
  adjust_log(log);
}

void adjust_log(const config::Log& log) {
  Logs& all = logs();
  all.level = level_of(log.level);
  spdlog::set_level(all.level);
  json_lines = log.format == config::LogFormat::kJson;
}

std::string LogFileFault::text() const {
  return operation + " " + path + ": " + reason;
}

bool reopen_logs(std::function<void(const Reopened&)> done) {
  std::vector<std::shared_ptr<FileOutput>> files;
  std::erase_if(logs().files, [](const auto& entry) { return entry.second.expired(); });
  for (const auto& [path, weak] : logs().files) {
    if (auto file = weak.lock()) files.push_back(std::move(file));
  }
  return logs().queue->ask([files = std::move(files), done = std::move(done)] {
    Reopened result;
    for (const auto& file : files) {
      if (auto fault = file->reopen()) {
        result.faults.push_back(std::move(*fault));
      } else {
        ++result.files;
      }
    }
    done(result);
  });
}

bool close_log() {
  if (!logs().queue->finish(limits::kLogPatience)) return false;
  spdlog::shutdown();
  return true;
}

void log_event(spdlog::level::level_enum level, const control::EventView& about, std::string text) {
  if (level < logs().level) return;
  if (!logs().queue) return spdlog::log(level, text);  // before the log is open, as in tests
  logs().queue->add({std::chrono::system_clock::now(), level, "", std::move(text),
                     std::make_shared<const control::EventView>(about)});
}

void on_log_room(std::function<void()> tell) {
  if (logs().queue) logs().queue->on_room(std::move(tell));
}

std::shared_ptr<LogSource> worker_log(const std::string& who, About about) {
  return logs().queue->worker({who, who, kContinued, std::move(about), logs().output});
}

std::shared_ptr<LogSource> file_log(const std::string& path, const std::string& who, About about) {
  auto output = file_output(path, true);
  const bool is_main = output == logs().main_file;
  return logs().queue->worker(
      {who, "", is_main ? kContinued : "", std::move(about), std::move(output)});
}

}  // namespace ostler::runtime
