#include "runtime/log.hpp"

#include <fcntl.h>
#include <spdlog/details/log_msg_buffer.h>
#include <spdlog/formatter.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/syslog_sink.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <syslog.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include "runtime/limits.hpp"
#include "runtime/unique_fd.hpp"

namespace ostler::runtime {
namespace {

std::string reason(int error) {
  return std::generic_category().message(error);
}

std::string timestamp(std::chrono::system_clock::time_point time) {
  const auto since = time.time_since_epoch();
  const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(since).count();
  const auto seconds = static_cast<std::time_t>(ms / 1000);
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  std::array<char, 40> text{};
  const auto length = std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%S", &parts);
  return std::string(text.data(), length) + "." + std::to_string(1000 + ms % 1000).substr(1) + "Z";
}

const char* level_word(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
      return "trace";
    case spdlog::level::debug:
      return "debug";
    case spdlog::level::info:
      return "info";
    case spdlog::level::warn:
      return "warning";
    case spdlog::level::err:
    case spdlog::level::critical:
    case spdlog::level::off:
    case spdlog::level::n_levels:
      break;
  }
  return "error";
}

int priority(spdlog::level::level_enum level) {
  switch (level) {
    case spdlog::level::trace:
    case spdlog::level::debug:
      return LOG_DEBUG;
    case spdlog::level::info:
      return LOG_INFO;
    case spdlog::level::warn:
      return LOG_WARNING;
    case spdlog::level::err:
    case spdlog::level::critical:
    case spdlog::level::off:
    case spdlog::level::n_levels:
      break;
  }
  return LOG_ERR;
}

std::string_view view(spdlog::string_view_t text) {
  return {text.data(), text.size()};
}

// "web.0[4243]: text"
std::string named_text(const spdlog::details::log_msg& message) {
  std::string line;
  if (message.logger_name.size() > 0) {
    line += view(message.logger_name);
    line += ": ";
  }
  line += view(message.payload);
  line += '\n';
  return line;
}

// "2026-01-31T12:34:56.123Z info web.0[4243]: text"
std::string text_line(const spdlog::details::log_msg& message) {
  std::string line = timestamp(message.time);
  line += ' ';
  line += level_word(message.level);
  line += ' ';
  return line + named_text(message);
}

// The fields of a worker logger's name, "POOL.SLOT[PID]".
void add_worker(nlohmann::ordered_json& json, std::string_view name) {
  const auto dot = name.rfind('.');
  const auto open = name.rfind('[');
  if (dot == std::string_view::npos || open == std::string_view::npos || open < dot) return;
  json["pool"] = name.substr(0, dot);
  json["slot"] = std::atoi(std::string(name.substr(dot + 1, open - dot - 1)).c_str());
  json["pid"] = std::atoi(std::string(name.substr(open + 1)).c_str());
}

std::string json_line(const spdlog::details::log_msg& message) {
  nlohmann::ordered_json json;
  json["time"] = timestamp(message.time);
  json["level"] = level_word(message.level);
  add_worker(json, view(message.logger_name));
  json["message"] = view(message.payload);
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

// `log.format`. An atomic, because a sink's formatter is changed under the lock that the log thread
// holds while it writes, and nobody may read what it writes.
std::atomic<bool> json_lines{false};

// Whether stderr is a stream to the journal, as sd-daemon(3) tells it: then a line begins with its
// priority, and the journal knows the time.
bool stderr_is_journal() {
  const char* const stream = std::getenv("JOURNAL_STREAM");
  struct stat status {};
  return stream != nullptr && ::fstat(STDERR_FILENO, &status) == 0 &&
         stream == std::to_string(status.st_dev) + ":" + std::to_string(status.st_ino);
}

class MainFormatter : public spdlog::formatter {
 public:
  explicit MainFormatter(bool journal) : journal_(journal) {}
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    std::string line = json_lines ? json_line(message)
                       : journal_ ? named_text(message)
                                  : text_line(message);
    if (journal_) line = "<" + std::to_string(priority(message.level)) + ">" + line;
    out.append(line.data(), line.data() + line.size());
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<MainFormatter>(journal_);
  }

 private:
  bool journal_;
};

class BareFormatter : public spdlog::formatter {
 public:
  void format(const spdlog::details::log_msg& message, spdlog::memory_buf_t& out) override {
    out.append(message.payload.data(), message.payload.data() + message.payload.size());
    out.push_back('\n');
  }
  std::unique_ptr<spdlog::formatter> clone() const override {
    return std::make_unique<BareFormatter>();
  }
};

void write_all(int fd, const char* data, std::size_t size) {
  while (size > 0) {
    const ssize_t written = ::write(fd, data, size);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;  // a log that cannot be written has nobody to complain to
    data += written;
    size -= static_cast<std::size_t>(written);
  }
}

class StderrSink : public spdlog::sinks::base_sink<std::mutex> {
 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t out;
    formatter_->format(message, out);
    write_all(STDERR_FILENO, out.data(), out.size());
  }
  void flush_() override {}
};

// Why a file that is no log was not opened, beyond what the system says of it.
std::string explain(int error) {
  if (error == ELOOP) return reason(error) + " (it is a symbolic link, which is not followed)";
  if (error == ENXIO) return reason(error) + " (it is a named pipe or a socket, not a file)";
  return reason(error);
}

// Never through a link that somebody planted, and never a pipe, which would hold up whoever writes.
std::optional<LogFileFault> open_log_file(const std::string& path, UniqueFd& file) {
  const int flags = O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
  UniqueFd opened(::open(path.c_str(), flags, 0640));
  if (!opened) return LogFileFault{path, "open", explain(errno)};
  struct stat status {};
  if (::fstat(opened.get(), &status) != 0) return LogFileFault{path, "stat", reason(errno)};
  if (!S_ISREG(status.st_mode) && !S_ISCHR(status.st_mode)) {
    return LogFileFault{path, "open", "it is a named pipe or a device, not a file"};
  }
  file = std::move(opened);
  return std::nullopt;
}

// A file that is appended to and can be opened anew (after a rotation).
class FileSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit FileSink(std::string path) : path_(std::move(path)) {
    formatter_ = std::make_unique<BareFormatter>();
    if (const auto fault = reopen()) throw LogFileError(fault->text());
  }
  // The file that was open stays so if there is a fault.
  std::optional<LogFileFault> reopen() {
    UniqueFd opened;
    if (auto fault = open_log_file(path_, opened)) return fault;
    const std::lock_guard lock(mutex_);
    fd_ = std::move(opened);
    return std::nullopt;
  }
  [[nodiscard]] const std::string& path() const { return path_; }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    spdlog::memory_buf_t out;
    formatter_->format(message, out);
    write_all(fd_.get(), out.data(), out.size());
  }
  void flush_() override {}

 private:
  std::string path_;
  UniqueFd fd_;
};

// journald's native protocol: one datagram a message, FIELD=value lines. Messages hold no line
// breaks here, so the form with a length is not needed.
class JournaldSink : public spdlog::sinks::base_sink<std::mutex> {
 public:
  JournaldSink() : socket_(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::strncpy(address.sun_path, "/run/systemd/journal/socket", sizeof address.sun_path - 1);
    if (!socket_ || ::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address),
                              sizeof address) != 0) {
      throw std::runtime_error(std::string("connect ") + address.sun_path + ": " + reason(errno));
    }
  }

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    std::string text =
        "SYSLOG_IDENTIFIER=ostlerd\nPRIORITY=" + std::to_string(priority(message.level)) +
        "\nMESSAGE=" + named_text(message);
    nlohmann::ordered_json fields;
    add_worker(fields, view(message.logger_name));
    if (!fields.empty()) {
      text += "OSTLER_POOL=" + fields["pool"].get<std::string>() + "\n";
      text += "OSTLER_SLOT=" + std::to_string(fields["slot"].get<int>()) + "\n";
      text += "OSTLER_WORKER_PID=" + std::to_string(fields["pid"].get<int>()) + "\n";
    }
    static_cast<void>(::send(socket_.get(), text.data(), text.size(), MSG_NOSIGNAL));
  }
  void flush_() override {}

 private:
  UniqueFd socket_;
};

// What waits for the log thread. spdlog's own looks for work every ten seconds; this one sleeps
// until there is some, as an idle manager has no wake-ups.
class LogQueue {
 public:
  // The oldest lines make way when nobody reads what is written.
  void add(const spdlog::sink_ptr& sink, const spdlog::details::log_msg& message) {
    {
      const std::lock_guard lock(mutex_);
      if (lines_.size() >= limits::kLogQueue) lines_.pop_front();
      lines_.push_back({sink, spdlog::details::log_msg_buffer(message)});
    }
    changed_.notify_all();
  }

  // Has the log thread do something else before the next line. False: too much of that waits.
  bool ask(std::function<void()> job) {
    {
      const std::lock_guard lock(mutex_);
      if (jobs_.size() >= limits::kLogJobs) return false;
      jobs_.push_back(std::move(job));
    }
    changed_.notify_all();
    return true;
  }

  // The log thread: ends once it is asked to and has written all.
  void write() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return ending_ || !jobs_.empty() || !lines_.empty(); });
      if (!jobs_.empty()) {
        do_first(lock);
      } else if (!lines_.empty()) {
        write_first(lock);
      } else {
        break;
      }
    }
    written_ = true;
    changed_.notify_all();
  }

  // False: it takes longer than `patience`. If nobody reads what is written, that is for ever.
  bool finish(std::chrono::milliseconds patience) {
    std::unique_lock lock(mutex_);
    ending_ = true;
    changed_.notify_all();
    return changed_.wait_for(lock, patience, [this] { return written_; });
  }

 private:
  struct Line {
    spdlog::sink_ptr sink;
    spdlog::details::log_msg_buffer message;
  };

  void do_first(std::unique_lock<std::mutex>& lock) {
    {
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
    }
    lock.lock();
  }

  void write_first(std::unique_lock<std::mutex>& lock) {
    {
      const Line line = std::move(lines_.front());
      lines_.pop_front();
      lock.unlock();
      line.sink->log(line.message);
    }
    lock.lock();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Line> lines_;
  std::deque<std::function<void()>> jobs_;
  bool ending_ = false;
  bool written_ = false;
};

// Has the log thread write.
class QueuedSink : public spdlog::sinks::sink {
 public:
  QueuedSink(std::shared_ptr<LogQueue> queue, spdlog::sink_ptr target)
      : queue_(std::move(queue)), target_(std::move(target)) {}
  void log(const spdlog::details::log_msg& message) override { queue_->add(target_, message); }
  void flush() override {}
  void set_pattern(const std::string& pattern) override { target_->set_pattern(pattern); }
  void set_formatter(std::unique_ptr<spdlog::formatter> formatter) override {
    target_->set_formatter(std::move(formatter));
  }

 private:
  std::shared_ptr<LogQueue> queue_;
  spdlog::sink_ptr target_;
};

struct Logs {
  std::shared_ptr<LogQueue> queue;
  spdlog::sink_ptr sink;
  spdlog::level::level_enum level = spdlog::level::info;
  std::map<std::string, std::weak_ptr<FileSink>> files;
  std::shared_ptr<FileSink> main_file;
};

Logs& logs() {
  static Logs instance;
  return instance;
}

std::shared_ptr<FileSink> file_sink(const std::string& path) {
  auto& known = logs().files[path];
  std::shared_ptr<FileSink> sink = known.lock();
  if (!sink) {
    sink = std::make_shared<FileSink>(path);
    known = sink;
  }
  return sink;
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

spdlog::sink_ptr make_sink(const config::Log& log) {
  switch (log.output) {
    case config::LogOutput::kStderr:
      return std::make_shared<StderrSink>();
    case config::LogOutput::kFile:
      return logs().main_file = file_sink(log.path);
    case config::LogOutput::kJournald:
      return std::make_shared<JournaldSink>();
    case config::LogOutput::kSyslog:
      return std::make_shared<spdlog::sinks::syslog_sink_mt>("ostlerd", LOG_PID, LOG_DAEMON, true);
  }
  return nullptr;
}

std::shared_ptr<spdlog::logger> make_logger(const std::string& name, spdlog::sink_ptr sink) {
  auto logger = std::make_shared<spdlog::logger>(
      name, std::make_shared<QueuedSink>(logs().queue, std::move(sink)));
  logger->set_level(logs().level);
  return logger;
}

}  // namespace

void open_log(const config::Log& log) {
  Logs& all = logs();
  all.queue = std::make_shared<LogQueue>();
  std::thread([queue = all.queue] { queue->write(); }).detach();
  all.sink = make_sink(log);
  if (log.output == config::LogOutput::kSyslog) {
    all.sink->set_pattern("%n%v");
  } else {
    const bool journal = log.output == config::LogOutput::kStderr && stderr_is_journal();
    all.sink->set_formatter(std::make_unique<MainFormatter>(journal));
  }
  spdlog::set_default_logger(make_logger("", all.sink));
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
  std::vector<std::shared_ptr<FileSink>> files;
  std::erase_if(logs().files, [](const auto& entry) { return entry.second.expired(); });
  for (const auto& [path, weak] : logs().files) {
    if (auto sink = weak.lock()) files.push_back(std::move(sink));
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

// What workers write is not the manager's to judge: it is logged whatever the level.
std::shared_ptr<spdlog::logger> worker_logger(const std::string& name) {
  auto logger = make_logger(name, logs().sink);
  logger->set_level(spdlog::level::trace);
  return logger;
}

std::shared_ptr<spdlog::logger> file_logger(const std::string& path) {
  auto sink = file_sink(path);
  if (sink == logs().main_file) return worker_logger("");
  auto logger = make_logger("", sink);
  logger->set_level(spdlog::level::trace);
  return logger;
}

std::string printable(std::string_view text) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if ((byte >= 0x20 && byte != 0x7f) || c == '\t') {
      out += c;
    } else {
      out += "\\x";
      out += kHex[byte >> 4U];
      out += kHex[byte & 0xfU];
    }
  }
  return out;
}

}  // namespace ostler::runtime
