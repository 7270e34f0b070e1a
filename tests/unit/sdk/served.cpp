#include "served.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <cstdio>
#include <stdexcept>
#include <variant>

namespace ostler::test {

Pipe::Pipe() {
  std::array<int, 2> ends;
  checked(::pipe2(ends.data(), O_CLOEXEC), "make a pipe");
  read = Fd(ends[0]);
  write = Fd(ends[1]);
}

std::string Pipe::read_until(const std::string& text) {
  while (seen.find(text) == std::string::npos) {
    wait_readable(read.get(), "wait for '" + text + "' after '" + seen + "'");
    std::array<char, 512> piece;
    const int size = checked(::read(read.get(), piece.data(), piece.size()), "read");
    if (size == 0) throw std::runtime_error("only '" + seen + "' was written");
    seen.append(piece.data(), static_cast<std::size_t>(size));
  }
  return seen;
}

Gate::Gate() {
  checked(::mkfifo(scratch_.file("gate").c_str(), 0600), "make a fifo");
}

void Gate::wait() const {
  const Fd end(checked(::open(scratch_.file("gate").c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC),
                       "open the gate's inner side"));
  std::fputs(kWaiting, stderr);
  wait_readable(end.get(), "wait at the gate");
}

void Gate::open() const {
  const Fd end(checked(::open(scratch_.file("gate").c_str(), O_WRONLY | O_NONBLOCK | O_CLOEXEC),
                       "open the gate"));
  checked(::write(end.get(), "x", 1), "open the gate");
}

http::options in_class(worker_class kind) {
  return options_with(kind, [](http::options&) {});
}

http::options in_async() {
  return in_class(worker_class::async);
}

Served::Served(const std::vector<const Listener*>& listeners, const http::handler& handler,
               const http::options& options)
    : manager_(scratch_.file("notify")) {
  std::vector<int> descriptors;
  for (const auto* listener : listeners) descriptors.push_back(listener->fd());
  descriptors.push_back(errors.write.get());
  descriptors.push_back(output.write.get());
  process_ = std::make_unique<Process>(descriptors, [&] {
    const int own = static_cast<int>(listeners.size()) + 3;
    ::dup2(own, STDERR_FILENO);
    ::dup2(own + 1, STDOUT_FILENO);
    set_environment({{"LISTEN_PID", "self"},
                     {"LISTEN_FDS", std::to_string(listeners.size())},
                     {"NOTIFY_SOCKET", scratch_.file("notify")}});
    return std::visit([&](const auto& function) { return http::serve(function, options); },
                      handler);
  });
  manager_.expect("READY=1");
}

void Served::stop() {
  process_->signal(SIGTERM);
  manager_.expect("STOPPING=1");
}

}  // namespace ostler::test
