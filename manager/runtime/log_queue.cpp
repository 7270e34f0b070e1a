#include "runtime/log_queue.hpp"

#include <algorithm>
#include <exception>
#include <utility>

#include "runtime/limits.hpp"

namespace ostler::runtime {
namespace {

LogLine notice(const LogSource::What& source, std::uint64_t lines, bool for_want_of_memory) {
  LogLine line;
  line.time = std::chrono::system_clock::now();
  line.level = spdlog::level::warn;
  line.text = std::to_string(lines) + (lines == 1 ? " line of " : " lines of ") + source.who +
              (lines == 1 ? " was" : " were") + " dropped: the " +
              (for_want_of_memory ? "system refused memory" : "log was not read");
  line.about = source.about;
  return line;
}

}  // namespace

std::size_t LogSource::room() {
  const std::lock_guard lock(queue_->mutex_);
  if (queue_->stands_still()) return limits::kOutputBatch;
  is_held_ = !queue_->has_room(*this);
  return is_held_ ? 0 : std::min(share_.lines - lines_, limits::kOutputBatch);
}

void LogSource::add(std::vector<std::string> lines) {
  if (lines.empty()) return;
  const auto now = std::chrono::system_clock::now();
  {
    const std::lock_guard lock(queue_->mutex_);
    // All or none: what was read together was given its room together.
    if (!queue_->has_room(*this)) return queue_->drop(shared_from_this(), lines.size());
    for (std::string& text : lines) {
      LogLine line;
      line.time = now;
      line.text = std::move(text);
      queue_->push(shared_from_this(), std::move(line));
    }
  }
  queue_->changed_.notify_all();
}

void LogSource::drop(std::uint64_t lines) {
  const std::lock_guard lock(queue_->mutex_);
  queue_->drop(shared_from_this(), lines);
}

LogQueue::LogQueue(std::shared_ptr<LogOutput> output)
    : own_(std::make_shared<LogSource>(
          nullptr, LogSource::What{"the manager", "", "", nullptr, std::move(output)},
          LogShare{limits::kLogOwnLines, limits::kLogOwnBytes})) {}

void LogQueue::add(LogLine line) {
  {
    const std::lock_guard lock(mutex_);
    if (!has_room(*own_)) return drop(own_, 1);
    push(own_, std::move(line));
  }
  changed_.notify_all();
}

std::shared_ptr<LogSource> LogQueue::worker(LogSource::What what) {
  return std::make_shared<LogSource>(shared_from_this(), std::move(what),
                                     LogShare{limits::kLogLines, limits::kLogBytes});
}

void LogQueue::on_room(std::function<void()> tell) {
  const std::lock_guard lock(mutex_);
  tell_ = std::move(tell);
}

bool LogQueue::ask(std::function<void()> job) {
  {
    const std::lock_guard lock(mutex_);
    if (jobs_.size() >= limits::kLogJobs) return false;
    jobs_.push_back(std::move(job));
  }
  changed_.notify_all();
  return true;
}

void LogQueue::write() {
  Lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty() || !lines_.empty(); });
    if (jobs_.empty() && lines_.empty()) break;
    busy_since_ = Clock::now();
    try {
      jobs_.empty() ? write_first(lock) : do_first(lock);
    } catch (const std::exception&) {  // the system refuses memory
      if (!lock.owns_lock()) lock.lock();
      lost();
    }
    busy_since_.reset();
  }
  written_ = true;
  changed_.notify_all();
}

bool LogQueue::finish(std::chrono::milliseconds patience) {
  Lock lock(mutex_);
  ending_ = true;
  changed_.notify_all();
  return changed_.wait_for(lock, patience, [this] { return written_; });
}

bool LogQueue::stands_still() const {
  return busy_since_ && Clock::now() - *busy_since_ > limits::kLogStandsStill;
}

// Whoever has nothing in the queue may add to it: then all have their turn, also if some fill what
// there is for all together.
bool LogQueue::has_room(const LogSource& source) const {
  if (source.lines_ >= source.share_.lines || source.bytes_ >= source.share_.bytes) return false;
  return &source == own_.get() || source.lines_ == 0 || workers_bytes_ < limits::kLogWorkersBytes;
}

// Half of it, so that a pipe is not read line by line.
bool LogQueue::has_room_again(const LogSource& source) const {
  return source.lines_ == 0 ||
         (source.lines_ <= source.share_.lines / 2 && source.bytes_ <= source.share_.bytes / 2 &&
          workers_bytes_ <= limits::kLogWorkersBytes / 2);
}

void LogQueue::push(const std::shared_ptr<LogSource>& source, LogLine line) {
  const std::size_t bytes = line.text.size() + sizeof(Waiting);
  ++source->lines_;
  source->bytes_ += bytes;
  if (source != own_) workers_bytes_ += bytes;
  lines_.push_back({source, std::move(line)});
}

// One notice for each source is enough: it says how many there are when it is written.
void LogQueue::drop(const std::shared_ptr<LogSource>& source, std::uint64_t lines) {
  if (lines == 0) return;
  if (source->dropped_ == 0) lines_.push_back({source, {}, true});
  source->dropped_ += lines;
  changed_.notify_all();
}

// A line that could not be written for want of memory.
void LogQueue::lost() noexcept {
  own_->for_want_of_memory_ = true;
  try {
    drop(own_, 1);
  } catch (const std::exception&) {
    own_->dropped_ = 0;  // no notice waits: the next is to be made
  }
}

void LogQueue::do_first(Lock& lock) {
  {
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
  }
  lock.lock();
}

// Returns whether its source is to be told of the room.
bool LogQueue::take_out(const Waiting& first) {
  LogSource& source = *first.source;
  const std::size_t bytes = first.line.text.size() + sizeof(Waiting);
  --source.lines_;
  source.bytes_ -= bytes;
  if (first.source != own_) workers_bytes_ -= bytes;
  return source.is_held_ && has_room_again(source) && std::exchange(source.is_held_, false);
}

void LogQueue::write_first(Lock& lock) {
  Waiting first = std::move(lines_.front());
  lines_.pop_front();
  const LogSource::What& what = first.source->what_;
  LogOutput* output = what.output.get();
  std::function<void()> tell;
  if (first.is_notice) {
    first.line = notice(what, std::exchange(first.source->dropped_, 0),
                        std::exchange(first.source->for_want_of_memory_, false));
    output = own_->what_.output.get();
  } else {
    if (take_out(first)) tell = tell_;
    first.line.name = what.name;
    if (what.about) first.line.about = what.about;
  }
  lock.unlock();
  if (tell) tell();
  output->write(first.line);
  // Frees what nobody else has, without the lock.
  first = {};
  tell = nullptr;
  lock.lock();
}

}  // namespace ostler::runtime
