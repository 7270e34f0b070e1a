#include "runtime/check_program.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <boost/asio/steady_timer.hpp>
#include <cerrno>
#include <csignal>
#include <memory>
#include <system_error>
#include <utility>

#include "core/failure.hpp"
#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

struct Check {
  explicit Check(boost::asio::io_context& context) : timer(context) {}
  boost::asio::steady_timer timer;
  std::shared_ptr<WorkerOutput> output;
  std::unique_ptr<Newborn> newborn;
  bool late = false;
};

std::string not_started(const Newborn& newborn) {
  return "the check could not be started: " + newborn.failure_text();
}

std::string fault_of(const Check& check, const core::Exited& exit, std::chrono::nanoseconds limit) {
  std::string fault;
  if (check.late) {
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(limit).count();
    fault = "the check did not end within " + std::to_string(ms) + " ms";
  } else if (check.newborn->look() == Newborn::State::kFailed) {
    fault = not_started(*check.newborn);
  } else if (exit.signaled) {
    fault = "the check was killed by " + core::signal_name(exit.code);
  } else if (exit.code != 0) {
    fault = "the check exited with code " + std::to_string(exit.code);
  }
  const auto lines = check.output->tail();
  if (!fault.empty() && !lines.empty()) fault += ": " + lines.back();
  return fault;
}

}  // namespace

void run_check(boost::asio::io_context& context, OutputTurns& outputs, ChildWatch& children,
               SpawnRequest request, const std::string& name, std::chrono::nanoseconds limit,
               std::function<void(const std::string& fault)> done) {
  std::array<int, 2> pipe{};
  if (::pipe2(pipe.data(), O_CLOEXEC) != 0) {
    return done("pipe: " + std::generic_category().message(errno));
  }
  UniqueFd reading(pipe[0]);
  const UniqueFd writing(pipe[1]);
  ::fcntl(reading.get(), F_SETFL, O_NONBLOCK);
  request.stdout_fd = request.stderr_fd = writing.get();
  request.death_signal = SIGKILL;
  const StopTerms terms{SIGKILL, {}, false};  // a check has had its time, and so have its children
  request.tag = children.new_tag(terms);
  const Tag tag = request.tag;
  auto newborn = std::make_unique<Newborn>(std::move(request));
  const pid_t pid = newborn->pid();
  if (pid < 0) {
    children.never_started(tag);
    return done(not_started(*newborn));
  }
  auto check = std::make_shared<Check>(context);
  check->output = std::make_shared<WorkerOutput>(context, outputs, std::move(reading));
  check->output->start(nullptr);
  Child child;
  child.name = name + "'s health check";
  child.pidfd = newborn->take_pidfd();
  child.tag = tag;
  child.terms = terms;
  child.on_exit = [check, limit, done = std::move(done)](const core::Exited& exit) {
    check->timer.cancel();
    check->output->drain(WorkerOutput::Clock::now() + limits::kOutputTurn);
    check->output->close();
    done(fault_of(*check, exit, limit));
  };
  check->newborn = std::move(newborn);
  children.add(pid, std::move(child));
  check->timer.expires_after(limit);
  check->timer.async_wait([check, &children, pid](const auto& error) {
    if (error) return;
    check->late = true;
    children.signal(pid, SIGKILL);
  });
}

}  // namespace ostler::runtime
