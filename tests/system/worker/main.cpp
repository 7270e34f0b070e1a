// ostler-test-worker: a worker that behaves, and misbehaves, as its flags say. It knows nothing of
// the SDK: a single-threaded HTTP/1.0 server on the inherited listener, descriptor 3.
#include <arpa/inet.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr char kUsage[] = R"(usage: ostler-test-worker [FLAG]...
  --listener FD           serve on this descriptor (default 3)
  --ready notify          say READY=1, then serve (default)
          mute            serve, and say nothing
          never           neither say anything nor serve
  --start-delay MS        wait before being ready
  --exit-code N           exit at once with this status, or with it after --exit-after
  --exit-after MS         exit so long after being ready
  --crash-before-ready    write three lines to stderr and abort
  --print TEXT            a line to stdout; several
  --flood-output BYTES    so much to stdout, in lines
  --print-env             what GET /env answers, as one line to stdout
  --ignore-term           deaf to TERM, INT and QUIT
  --stop-slow MS          take so long to stop
  --fork-children N       children that ignore TERM, INT and QUIT and wait for ever
  --double-fork-child     one whose parent is gone, in the same session and process group
  --notify TEXT           a datagram to the manager before READY=1, \n for a line end; several
  --heartbeat-ms N        WATCHDOG=1 every so often
  --stop-heartbeat-after MS   and no more after that
  --watchdog-trigger      say WATCHDOG=trigger when ready

  GET /        200     GET /pid   the pid     GET /env    this process as JSON
  GET /crash   abort   GET /hang  answer nothing, ever again

TERM, INT or QUIT: finish the connection at hand and exit 0.
)";

enum class Ready { kNotify, kMute, kNever };

struct Flags {
  int listener = 3;
  Ready ready = Ready::kNotify;
  milliseconds start_delay{0};
  std::optional<int> exit_code;
  std::optional<milliseconds> exit_after;
  bool crash_before_ready = false;
  std::vector<std::string> print;
  int flood_output = 0;
  bool print_env = false;
  bool ignore_term = false;
  milliseconds stop_slow{0};
  int fork_children = 0;
  bool double_fork_child = false;
  std::vector<std::string> notify;
  std::optional<milliseconds> heartbeat;
  std::optional<milliseconds> mute_after;
  bool watchdog_trigger = false;
};

// The masks and dispositions that this process was given, read before it changes any.
std::vector<std::string> given_status;
std::vector<std::string> arguments;
std::vector<pid_t> children;
volatile std::sig_atomic_t stop_requested = 0;

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "ostler-test-worker: %s: %s\n", what.c_str(), std::strerror(errno));
  std::exit(EXIT_FAILURE);
}

void check(bool good, const char* what) {
  if (!good) fail(what);
}

[[noreturn]] void wait_for_ever() {
  while (true) ::pause();
}

// Writes all of it, whatever the reader's speed, without the buffers of stdio.
void write_all(int descriptor, std::string_view text) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return;
    text.remove_prefix(static_cast<std::size_t>(written));
  }
}

// ---- flags

int number(const char* text) {
  char* end = nullptr;
  errno = 0;
  const long value = std::strtol(text, &end, 10);
  if (errno != 0 || end == text || *end != '\0' || !std::in_range<int>(value)) {
    std::fprintf(stderr, "ostler-test-worker: '%s' is not a number\n", text);
    std::exit(2);
  }
  return static_cast<int>(value);
}

std::string with_line_ends(std::string text) {
  for (std::size_t at = 0; (at = text.find("\\n", at)) != std::string::npos; ++at) {
    text.replace(at, 2, 1, '\n');
  }
  return text;
}

Ready ready_mode(std::string_view text) {
  if (text == "notify") return Ready::kNotify;
  if (text == "mute") return Ready::kMute;
  if (text == "never") return Ready::kNever;
  std::fputs(kUsage, stderr);
  std::exit(2);
}

struct Flag {
  const char* name;
  int takes_value;
  void (*apply)(Flags& flags, const char* value);
};

constexpr Flag kFlags[] = {
    {"listener", 1, [](Flags& f, const char* v) { f.listener = number(v); }},
    {"ready", 1, [](Flags& f, const char* v) { f.ready = ready_mode(v); }},
    {"start-delay", 1, [](Flags& f, const char* v) { f.start_delay = milliseconds(number(v)); }},
    {"exit-code", 1, [](Flags& f, const char* v) { f.exit_code = number(v); }},
    {"exit-after", 1, [](Flags& f, const char* v) { f.exit_after = milliseconds(number(v)); }},
    {"crash-before-ready", 0, [](Flags& f, const char*) { f.crash_before_ready = true; }},
    {"print", 1, [](Flags& f, const char* v) { f.print.emplace_back(v); }},
    {"flood-output", 1, [](Flags& f, const char* v) { f.flood_output = number(v); }},
    {"print-env", 0, [](Flags& f, const char*) { f.print_env = true; }},
    {"ignore-term", 0, [](Flags& f, const char*) { f.ignore_term = true; }},
    {"stop-slow", 1, [](Flags& f, const char* v) { f.stop_slow = milliseconds(number(v)); }},
    {"fork-children", 1, [](Flags& f, const char* v) { f.fork_children = number(v); }},
    {"double-fork-child", 0, [](Flags& f, const char*) { f.double_fork_child = true; }},
    {"notify", 1, [](Flags& f, const char* v) { f.notify.push_back(with_line_ends(v)); }},
    {"heartbeat-ms", 1, [](Flags& f, const char* v) { f.heartbeat = milliseconds(number(v)); }},
    {"stop-heartbeat-after", 1,
     [](Flags& f, const char* v) { f.mute_after = milliseconds(number(v)); }},
    {"watchdog-trigger", 0, [](Flags& f, const char*) { f.watchdog_trigger = true; }},
};

Flags parse(int argc, char** argv) {
  std::vector<option> options;
  for (const auto& flag : kFlags) options.push_back({flag.name, flag.takes_value, nullptr, 0});
  options.push_back({nullptr, 0, nullptr, 0});
  Flags flags;
  int index = 0;
  for (int found = 0; (found = ::getopt_long(argc, argv, "", options.data(), &index)) != -1;) {
    if (found != 0) {
      std::fputs(kUsage, stderr);
      std::exit(2);
    }
    kFlags[index].apply(flags, optarg);
  }
  return flags;
}

// ---- the manager's notify socket

void notify(std::string_view text) {
  const char* name = std::getenv("NOTIFY_SOCKET");
  if (name == nullptr) return;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::size_t size = std::min(std::strlen(name), sizeof address.sun_path);
  std::copy_n(name, size, address.sun_path);
  if (address.sun_path[0] == '@') address.sun_path[0] = '\0';
  const int socket = ::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + size);
  if (::sendto(socket, text.data(), text.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address), length) < 0) {
    fail("send to the notify socket " + std::string(name));
  }
  ::close(socket);
}

// ---- what this process is, as JSON

std::string json_string(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char escape[8];
      std::snprintf(escape, sizeof escape, "\\u%04x", static_cast<unsigned>(c));
      out += escape;
    } else {
      out += c;
    }
  }
  return out + '"';
}

// A name and a value that is JSON already.
std::string member(std::string_view name, std::string_view value) {
  return json_string(name).append(1, ':').append(value);
}

// Puts members, or elements, between brackets.
std::string joined(const std::vector<std::string>& parts, std::string_view brackets) {
  std::string out(1, brackets[0]);
  for (const auto& part : parts) out.append(out.size() > 1 ? 1 : 0, ',').append(part);
  return out + brackets[1];
}

std::string descriptors_as_json() {
  std::vector<std::string> members;
  for (const auto& entry : std::filesystem::directory_iterator("/proc/self/fd")) {
    std::error_code gone;
    const auto target = std::filesystem::read_symlink(entry.path(), gone).string();
    if (gone || target.ends_with("/fd")) continue;  // the one that reads this directory
    members.push_back(member(entry.path().filename().string(), json_string(target)));
  }
  return joined(members, "{}");
}

// Lines as members, each split at the first separator: /proc/self/status has Uid, Groups, Umask,
// SigBlk, SigIgn, SigCgt, CapEff and others.
std::string lines_as_json(const std::vector<std::string>& lines, std::string_view separator) {
  std::vector<std::string> members;
  for (const std::string_view line : lines) {
    const auto at = line.find(separator);
    if (at == line.npos) continue;
    members.push_back(member(line.substr(0, at), json_string(line.substr(at + separator.size()))));
  }
  return joined(members, "{}");
}

std::string process_as_json() {
  std::vector<std::string> pids;
  for (const pid_t child : children) pids.push_back(std::to_string(child));
  std::vector<std::string> argv;
  for (const auto& argument : arguments) argv.push_back(json_string(argument));
  std::vector<std::string> environment;
  for (char** each = environ; *each != nullptr; ++each) environment.emplace_back(*each);
  int death_signal = 0;
  ::prctl(PR_GET_PDEATHSIG, &death_signal);
  rlimit files{};
  ::getrlimit(RLIMIT_NOFILE, &files);
  std::error_code unreadable;
  const auto directory = std::filesystem::current_path(unreadable).string();
  return joined(
      {member("pid", std::to_string(::getpid())), member("ppid", std::to_string(::getppid())),
       member("pgid", std::to_string(::getpgrp())), member("sid", std::to_string(::getsid(0))),
       member("pdeathsig", std::to_string(death_signal)),
       member("open_files", std::to_string(files.rlim_cur)),
       member("nice", std::to_string(::getpriority(PRIO_PROCESS, 0))),
       member("cwd", json_string(directory)), member("children", joined(pids, "[]")),
       member("argv", joined(argv, "[]")), member("fds", descriptors_as_json()),
       member("env", lines_as_json(environment, "=")),
       member("status", lines_as_json(given_status, ":\t"))},
      "{}");
}

// ---- children

void be_deaf() {
  for (const int signal : {SIGTERM, SIGINT, SIGQUIT}) std::signal(signal, SIG_IGN);
}

void fork_child() {
  const pid_t child = ::fork();
  check(child >= 0, "fork a child");
  if (child == 0) {
    be_deaf();
    wait_for_ever();
  }
  children.push_back(child);
}

// The grandchild's pid comes back through a pipe; it is adopted by init or a subreaper.
void fork_grandchild() {
  int ends[2];
  check(::pipe2(ends, O_CLOEXEC) == 0, "make a pipe");
  const pid_t child = ::fork();
  check(child >= 0, "fork a child");
  if (child == 0) {
    if (::fork() != 0) ::_exit(0);
    be_deaf();
    const pid_t self = ::getpid();
    write_all(ends[1], {reinterpret_cast<const char*>(&self), sizeof self});
    ::close(ends[0]);
    ::close(ends[1]);
    wait_for_ever();
  }
  ::close(ends[1]);
  pid_t grandchild = 0;
  check(::read(ends[0], &grandchild, sizeof grandchild) == sizeof grandchild, "read from a pipe");
  ::close(ends[0]);
  ::waitpid(child, nullptr, 0);
  children.push_back(grandchild);
}

// ---- serving

[[noreturn]] void crash() {
  const rlimit none{0, 0};
  ::setrlimit(RLIMIT_CORE, &none);
  std::abort();
}

std::string read_request(int connection) {
  const timeval limit{.tv_sec = 5, .tv_usec = 0};
  ::setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  std::string request;
  while (request.find("\r\n\r\n") == std::string::npos && request.size() < 16 * 1024) {
    char piece[4096];
    const ssize_t size = ::recv(connection, piece, sizeof piece, 0);
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    request.append(piece, static_cast<std::size_t>(size));
  }
  return request;
}

void answer(int connection, const char* status, const std::string& body) {
  std::string text = std::string("HTTP/1.0 ") + status +
                     "\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length: " +
                     std::to_string(body.size()) + "\r\n\r\n" + body;
  std::string_view rest = text;
  while (!rest.empty()) {
    const ssize_t sent = ::send(connection, rest.data(), rest.size(), MSG_NOSIGNAL);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) return;
    rest.remove_prefix(static_cast<std::size_t>(sent));
  }
}

void serve(int connection) {
  const std::string request = read_request(connection);
  if (!request.starts_with("GET ")) {
    if (!request.empty()) answer(connection, "405 Method Not Allowed", "only GET\n");
    return;
  }
  const std::string path = request.substr(4, request.find_first_of(" ?\r\n", 4) - 4);
  if (path == "/crash") crash();
  if (path == "/hang") wait_for_ever();
  if (path == "/pid") return answer(connection, "200 OK", std::to_string(::getpid()) + "\n");
  if (path == "/env") return answer(connection, "200 OK", process_as_json() + "\n");
  if (path == "/") return answer(connection, "200 OK", "ok\n");
  answer(connection, "404 Not Found", "no " + path + "\n");
}

// The moments at which something is due besides the next connection.
struct Timetable {
  std::optional<Clock::time_point> heartbeat, mute, exit;

  std::optional<timespec> until_next(Clock::time_point now) const {
    std::optional<Clock::time_point> next;
    for (const auto& each : {heartbeat, mute, exit}) {
      if (each && (!next || *each < *next)) next = each;
    }
    if (!next) return std::nullopt;
    const auto left = std::max(Clock::duration::zero(), *next - now);
    const auto whole = std::chrono::floor<std::chrono::seconds>(left);
    return timespec{whole.count(), std::chrono::nanoseconds(left - whole).count()};
  }
};

void do_what_is_due(const Flags& flags, Timetable& table, Clock::time_point now) {
  if (table.mute && now >= *table.mute) table.mute = table.heartbeat = std::nullopt;
  if (table.heartbeat && now >= *table.heartbeat) {
    notify("WATCHDOG=1");
    table.heartbeat = now + *flags.heartbeat;
  }
  if (table.exit && now >= *table.exit) std::_Exit(flags.exit_code.value_or(0));
}

void serve_until_stopped(const Flags& flags, const sigset_t& open_mask) {
  const auto start = Clock::now();
  Timetable table;
  if (flags.heartbeat) table.heartbeat = start + *flags.heartbeat;
  if (flags.mute_after) table.mute = start + *flags.mute_after;
  if (flags.exit_after) table.exit = start + *flags.exit_after;
  // Without a listener of its own, only the timetable is followed.
  const bool listening = flags.ready != Ready::kNever && ::fcntl(flags.listener, F_GETFD) >= 0;
  pollfd poll{listening ? flags.listener : -1, POLLIN, 0};
  // A connection that was seen may be taken by another worker before this one accepts it.
  if (listening) ::fcntl(flags.listener, F_SETFL, O_NONBLOCK);
  while (stop_requested == 0) {
    const auto timeout = table.until_next(Clock::now());
    const int found = ::ppoll(&poll, 1, timeout ? &*timeout : nullptr, &open_mask);
    if (found > 0) {
      const int connection = ::accept4(flags.listener, nullptr, nullptr, SOCK_CLOEXEC);
      if (connection >= 0) {
        serve(connection);
        ::close(connection);
      }
    }
    do_what_is_due(flags, table, Clock::now());
  }
}

// ---- life

// Stop signals are blocked but while the worker waits, so that none is missed in between.
sigset_t catch_stop_signals(bool ignore) {
  sigset_t stop_set;
  sigset_t open_mask;
  sigemptyset(&stop_set);
  for (const int signal : {SIGTERM, SIGINT, SIGQUIT}) {
    struct sigaction action {};
    if (ignore) {
      action.sa_handler = SIG_IGN;
    } else {
      action.sa_handler = [](int) { stop_requested = 1; };
    }
    ::sigaction(signal, &action, nullptr);
    sigaddset(&stop_set, signal);
  }
  ::sigprocmask(SIG_BLOCK, &stop_set, &open_mask);
  return open_mask;
}

// Cut short by a stop signal.
void wait_for(milliseconds time, const sigset_t& open_mask) {
  Timetable table;
  table.exit = Clock::now() + time;
  while (stop_requested == 0 && Clock::now() < *table.exit) {
    const auto left = table.until_next(Clock::now());
    ::ppoll(nullptr, 0, &*left, &open_mask);
  }
}

void say_what_was_asked(const Flags& flags) {
  std::string text;
  for (const auto& line : flags.print) text += line + "\n";
  if (flags.print_env) text += process_as_json() + "\n";
  constexpr int kLine = 80;
  for (int left = flags.flood_output; left > 0; left -= kLine) {
    text.append(static_cast<std::size_t>(std::min(left, kLine) - 1), 'x') += '\n';
  }
  write_all(STDOUT_FILENO, text);
  for (const auto& message : flags.notify) notify(message);
}

std::vector<std::string> lines_of(const char* path) {
  std::vector<std::string> lines;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

int run(const Flags& flags) {
  const sigset_t open_mask = catch_stop_signals(flags.ignore_term);
  for (int i = 0; i < flags.fork_children; ++i) fork_child();
  if (flags.double_fork_child) fork_grandchild();
  say_what_was_asked(flags);
  if (flags.exit_code && !flags.exit_after) return *flags.exit_code;
  wait_for(flags.start_delay, open_mask);
  if (flags.crash_before_ready) {
    write_all(STDERR_FILENO, "loading the application\ncannot reach the database\ngiving up\n");
    crash();
  }
  if (flags.ready == Ready::kNotify && stop_requested == 0) notify("READY=1");
  if (flags.watchdog_trigger) notify("WATCHDOG=trigger");
  serve_until_stopped(flags, open_mask);
  ::usleep(static_cast<useconds_t>(std::chrono::microseconds(flags.stop_slow).count()));
  return EXIT_SUCCESS;
}

}  // namespace

int main(int argc, char** argv) {
  given_status = lines_of("/proc/self/status");
  arguments.assign(argv, argv + argc);
  return run(parse(argc, argv));
}
