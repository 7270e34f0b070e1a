#include "runtime/usage_meter.hpp"

#include <algorithm>
#include <utility>

#include "runtime/clock.hpp"

namespace ostler::runtime {
namespace {

bool contains(const std::vector<UsageMeter::Subject>& subjects,
              const UsageMeter::Subject& subject) {
  return std::ranges::find(subjects, subject) != subjects.end();
}

}  // namespace

struct UsageMeter::Sweep {
  struct Result {
    core::Time since;
    Usage usage;
  };

  std::vector<Subject> todo;
  std::size_t wanted = 0;  // the first so many are measured however long it takes
  core::Time begin = now();
  std::vector<Result> results = std::vector<Result>(todo.size());
  std::size_t made = 0;
  std::size_t lost = 0;  // the one whose look has not come back

  template <class Measure>
  bool make(std::size_t number, const Measure& measure) {
    const core::Time since = now();
    results[number] = {since, measure(todo[number].pid)};
    made = number + 1;
    return made < todo.size() && (made < wanted || now() - begin < limits::kSampleTurn);
  }
};

struct UsageMeter::Waiting {
  explicit Waiting(boost::asio::io_context& context) : timer(context) {}
  std::function<void()> then;
  boost::asio::steady_timer timer;
};

UsageMeter::UsageMeter(boost::asio::io_context& context, Hooks hooks)
    : context_(context), hooks_(std::move(hooks)), looks_(context, limits::kLostSweeps) {}

void UsageMeter::measure(const Subject& subject) {
  if (contains(wanted_, subject) || contains(lost_, subject)) return;
  wanted_.push_back(subject);
  if (!sweep_) go_on();
}

void UsageMeter::refresh(const std::vector<Subject>& subjects, std::function<void()> then) {
  old_.clear();
  bool measuring = false;
  for (const Subject& subject : subjects) {
    const bool is_measured = sweep_ && contains(sweep_->todo, subject);
    if (is_measured) measuring = true;
    if (!is_measured && !contains(lost_, subject)) old_.push_back(subject);
  }
  if (!measuring && old_.empty()) return then();
  const auto waiting = std::make_shared<Waiting>(context_);
  waiting->then = std::move(then);
  waiting->timer.expires_after(hooks_.answer);
  waiting->timer.async_wait(
      [this, weak = std::weak_ptr(waiting)](const boost::system::error_code& error) {
        const auto late = weak.lock();
        if (error || !late || std::erase(waiting_, late) == 0) return;
        late->then();
      });
  waiting_.push_back(waiting);
  if (!sweep_) go_on();
}

// What else there is to measure; if nothing, those who wait are answered.
void UsageMeter::go_on() {
  sweep_.reset();
  if (!wanted_.empty() || !old_.empty()) start_sweep();
  if (sweep_) return;
  for (const auto& waiting : std::exchange(waiting_, {})) waiting->then();
}

void UsageMeter::start_sweep() {
  const std::vector<Subject> wanted = std::exchange(wanted_, {});
  std::vector<Subject> todo = wanted;
  for (const Subject& subject : std::exchange(old_, {})) {
    if (!contains(wanted, subject)) todo.push_back(subject);
  }
  const auto sweep = std::make_shared<Sweep>(Sweep{std::move(todo), wanted.size()});
  Looks::Sweep looks;
  looks.look = [sweep, measure = hooks_.measure](std::size_t at) {
    return sweep->make(at, measure);
  };
  looks.done = [this, sweep] { finished(*sweep); };
  looks.given_up = [this, sweep](std::size_t at) { give_up(sweep, at); };
  looks.back = [this, sweep] { came_back(*sweep); };
  looks.patience = hooks_.patience;
  const std::string fault = looks_.start(std::move(looks));
  if (fault.empty()) {
    sweep_ = sweep;
    return;
  }
  for (const Subject& subject : sweep->todo) hooks_.overdue(subject.worker, fault);
  for (const Subject& subject : wanted) hooks_.measured(subject.worker, now(), {});
}

void UsageMeter::finished(const Sweep& sweep) {
  for (std::size_t i = 0; i < sweep.made; ++i) tell(sweep, i);
  go_on();
}

// The thread may write its result at any time from now on.
void UsageMeter::give_up(const std::shared_ptr<Sweep>& sweep, std::size_t number) {
  for (std::size_t i = 0; i < number; ++i) tell(*sweep, i);
  sweep->lost = number;
  const Subject& stuck = sweep->todo[number];
  lost_.push_back(stuck);
  for (std::size_t i = number + 1; i < sweep->todo.size(); ++i) {
    (i < sweep->wanted ? wanted_ : old_).push_back(sweep->todo[i]);
  }
  hooks_.overdue(stuck.worker, "measuring it has not come back within " +
                                   std::to_string(hooks_.patience.count()) + "ms");
  go_on();
}

void UsageMeter::came_back(const Sweep& sweep) {
  std::erase(lost_, sweep.todo[sweep.lost]);
  if (sweep.made > sweep.lost) tell(sweep, sweep.lost);
}

void UsageMeter::tell(const Sweep& sweep, std::size_t number) const {
  const Sweep::Result& result = sweep.results[number];
  hooks_.measured(sweep.todo[number].worker, result.since, result.usage);
}

}  // namespace ostler::runtime
