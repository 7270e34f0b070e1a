#include "runtime/output.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/post.hpp>
#include <cerrno>
#include <iterator>
#include <tuple>
#include <utility>

#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

std::string clean(std::string_view line) {
  if (line.ends_with('\r')) line.remove_suffix(1);
  return printable(line);
}

// The last lines of `text`, as many as are kept.
std::string_view last_lines(std::string_view text) {
  std::size_t begin = text.size();
  for (std::size_t ends = 0; begin > 0; --begin) {
    if (text[begin - 1] == '\n' && ends++ == limits::kTailLines) break;
  }
  return text.substr(begin);
}

void keep(std::deque<std::string>& tail, std::string_view line) {
  tail.emplace_back(line.substr(0, limits::kTailLine));
  if (tail.size() > limits::kTailLines) tail.pop_front();
}

}  // namespace

void OutputTurns::add(const std::shared_ptr<WorkerOutput>& output) {
  if (std::exchange(output->is_listed_, true)) return;
  waiting_.push_back(output);
  schedule({});
}

void OutputTurns::log_has_room() {
  if (held_.empty()) return;
  std::move(held_.begin(), held_.end(), std::back_inserter(waiting_));
  held_.clear();
  schedule({});
}

bool OutputTurns::has_last_words() const {
  const auto has_some = [](const auto& output) { return output->has_last_words_; };
  return std::ranges::any_of(waiting_, has_some) || std::ranges::any_of(held_, has_some);
}

void OutputTurns::give_up() {
  for (auto* const outputs : {&waiting_, &held_}) {
    for (const auto& output : *outputs) output->give_up();
    outputs->clear();
  }
}

void OutputTurns::schedule(std::chrono::nanoseconds after) {
  if (std::exchange(is_scheduled_, true)) return;
  const auto turn = [this](const boost::system::error_code& error) {
    if (error) return;
    is_scheduled_ = false;
    take_turn();
  };
  if (after.count() == 0) return boost::asio::post(context_, [turn] { turn({}); });
  timer_.expires_after(after);
  timer_.async_wait(turn);
}

void OutputTurns::take_turn() {
  const auto end = WorkerOutput::Clock::now() + limits::kOutputTurn;
  while (!waiting_.empty() && WorkerOutput::Clock::now() < end) {
    const auto output = std::move(waiting_.front());
    waiting_.pop_front();
    switch (output->read_batch()) {
      case WorkerOutput::Left::kNothing:
        output->is_listed_ = false;
        output->wait();
        break;
      case WorkerOutput::Left::kMore:
        waiting_.push_back(output);
        break;
      case WorkerOutput::Left::kHeld:
        held_.push_back(output);
        break;
    }
  }
  if (!waiting_.empty()) schedule(limits::kOutputPause);
  if (!held_.empty()) look_at_held();
  if (tell_) tell_();
}

// They are told when there is room; but a log that stands still tells nobody.
void OutputTurns::look_at_held() {
  if (std::exchange(is_patient_, true)) return;
  patience_.expires_after(limits::kLogStandsStill);
  patience_.async_wait([this](const boost::system::error_code& error) {
    if (error) return;
    is_patient_ = false;
    log_has_room();
  });
}

WorkerOutput::WorkerOutput(boost::asio::io_context& context, OutputTurns& turns,
                           UniqueFd reading_end)
    : pipe_(context, reading_end.get()), turns_(turns) {
  std::ignore = reading_end.release();
}

void WorkerOutput::start(std::shared_ptr<LogSource> log) {
  log_ = std::move(log);
  wait();
}

void WorkerOutput::wait() {
  if (!pipe_.is_open() || std::exchange(is_awaited_, true)) return;
  pipe_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                   [self = shared_from_this()](const boost::system::error_code& error) {
                     self->is_awaited_ = false;
                     if (!error) self->turns_.add(self);
                   });
}

void WorkerOutput::drain(Clock::time_point end) {
  has_last_words_ = true;
  std::array<char, limits::kOutputRead> buffer{};
  for (std::size_t budget = limits::kOutputDrain; budget > 0;) {
    const std::size_t size = read_into(std::span(buffer).first(std::min(budget, buffer.size())));
    if (size == 0) break;
    unread_.append(buffer.data(), size);
    budget -= size;
  }
  Left left = read_batch();
  while (left == Left::kMore && Clock::now() < end) left = read_batch();
  if (left != Left::kNothing) turns_.add(shared_from_this());
}

void WorkerOutput::close() {
  boost::system::error_code ignored;
  pipe_.close(ignored);
}

std::vector<std::string> WorkerOutput::tail() const {
  std::deque<std::string> lines = tail_;
  if (has_last_words_) {  // what the log has no room for yet counts, too
    const std::string_view rest = unread();
    std::string_view last = last_lines(rest);
    const std::string whole = last.size() == rest.size() ? partial_ + std::string(last) : "";
    if (!whole.empty()) last = whole;
    while (!last.empty()) {
      const auto line_end = last.find('\n');
      keep(lines, clean(last.substr(0, line_end)));
      last.remove_prefix(line_end == std::string_view::npos ? last.size() : line_end + 1);
    }
  }
  return {lines.begin(), lines.end()};
}

WorkerOutput::Left WorkerOutput::read_batch() {
  const std::size_t most = log_ ? log_->room() : limits::kOutputBatch;
  if (most == 0) return Left::kHeld;
  if (!unread_.empty()) {
    std::string_view bytes = unread();
    take(bytes, most);
    taken_ = unread_.size() - bytes.size();
    if (bytes.empty()) unread_ = {}, taken_ = 0;
    return Left::kMore;
  }
  std::array<char, limits::kOutputRead> buffer{};
  const std::size_t size = read_into(buffer);
  if (size > 0) {
    std::string_view bytes(buffer.data(), size);
    take(bytes, most);
    unread_.assign(bytes);
    return Left::kMore;
  }
  const bool is_end = std::exchange(has_last_words_, false) || !pipe_.is_open();
  if (is_end && !partial_.empty()) log({finished({}, true)});
  return Left::kNothing;
}

std::size_t WorkerOutput::read_into(std::span<char> buffer) {
  if (!pipe_.is_open()) return 0;
  const ssize_t size = ::read(pipe_.native_handle(), buffer.data(), buffer.size());
  if (size > 0) return static_cast<std::size_t>(size);
  if (size == 0 || (errno != EAGAIN && errno != EINTR)) close();
  return 0;
}

void WorkerOutput::take(std::string_view& bytes, std::size_t most) {
  std::vector<std::string> lines;
  while (!bytes.empty() && lines.size() < most) {
    const auto end = bytes.find('\n');
    const std::string_view part = bytes.substr(0, end);
    const std::size_t fits = limits::kOutputLine - partial_.size();
    if (part.size() > fits) {
      lines.push_back(finished(part.substr(0, fits), false));
      bytes.remove_prefix(fits);
    } else if (end != std::string_view::npos) {
      lines.push_back(finished(part, true));
      bytes.remove_prefix(end + 1);
    } else {
      partial_ += part;
      bytes = {};
    }
  }
  log(std::move(lines));
}

// The line that ends with `part`, or is cut after it.
std::string WorkerOutput::finished(std::string_view part, bool is_whole) {
  std::string line = clean(partial_.empty() ? part : partial_ += part);
  partial_.clear();
  const bool was_cut = std::exchange(is_cut_, !is_whole);
  return was_cut && log_ ? log_->what().continued + line : line;
}

void WorkerOutput::log(std::vector<std::string> lines) {
  const std::size_t kept = std::min(lines.size(), limits::kTailLines);
  for (const std::string& line : std::span(lines).last(kept)) keep(tail_, line);
  if (log_) log_->add(std::move(lines));
}

// What was read cannot be logged any more, and nor can what waits in the pipe.
void WorkerOutput::give_up() {
  if (!log_ || !has_last_words_) return;
  std::uint64_t lines = 0;
  bool is_unfinished = !partial_.empty();
  const auto count = [&](std::string_view bytes) {
    lines += static_cast<std::uint64_t>(std::ranges::count(bytes, '\n'));
    if (!bytes.empty()) is_unfinished = !bytes.ends_with('\n');
  };
  count(unread());
  std::array<char, limits::kOutputRead> buffer{};
  for (std::size_t budget = limits::kOutputGivenUp; budget > 0;) {
    const std::size_t size = read_into(std::span(buffer).first(std::min(budget, buffer.size())));
    if (size == 0) break;
    count({buffer.data(), size});
    budget -= size;
  }
  log_->drop(lines + (is_unfinished ? 1 : 0));
}

}  // namespace ostler::runtime
