#include "tally.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

namespace ostler::bench {
namespace {

constexpr std::size_t kNamed = 10;  // so many lost requests are told one by one

double milliseconds(double seconds) {
  return seconds * 1e3;
}

// The least value that `share` of all are not above.
double percentile(const std::vector<double>& sorted, double share) {
  if (sorted.empty()) return 0;
  const double rank = std::ceil(share * static_cast<double>(sorted.size()));
  return sorted[static_cast<std::size_t>(std::max(rank, 1.0)) - 1];
}

std::string quoted(std::string text) {
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return c < 0x20 || c == 0x7f || c == '"' || c == '\\'; }, '?');
  return '"' + text + '"';
}

}  // namespace

double Tally::since_start(Clock::time_point time) const {
  return std::chrono::duration<double>(time - start_).count();
}

void Tally::taken_up(const Request& request, Clock::time_point now) {
  late_.push_back(std::chrono::duration<double>(now - request.planned).count());
}

void Tally::answered(const Request& request, Clock::time_point now) {
  answers_.push_back(
      {since_start(now), since_start(now) - since_start(request.planned), request.target});
}

void Tally::lost(const Request& request, Loss loss, const std::string& why, Clock::time_point now) {
  lost_.push_back(
      {request.id, request.target, loss, since_start(request.planned), since_start(now), why});
}

void Tally::add(const Tally& other) {
  late_.insert(late_.end(), other.late_.begin(), other.late_.end());
  answers_.insert(answers_.end(), other.answers_.begin(), other.answers_.end());
  lost_.insert(lost_.end(), other.lost_.begin(), other.lost_.end());
  closed_while_held_ += other.closed_while_held_;
}

void Tally::print() {
  std::sort(late_.begin(), late_.end());
  std::printf(R"({"sent": %zu, "answered": %zu, "lost": %zu, )", late_.size(), answers_.size(),
              lost_.size());
  if (options_->connections == Connections::kHeld) {
    std::printf(R"("closed_while_held": %lu, )", closed_while_held_);
  }
  print_targets();
  print_lost();
  print_gap();
  print_clusters();
  std::printf(R"("late_ms": {"p99": %.3f, "max": %.3f}})", milliseconds(percentile(late_, 0.99)),
              milliseconds(percentile(late_, 1)));
  std::puts("");
}

void Tally::print_targets() const {
  static constexpr std::pair<const char*, double> kShares[] = {
      {"p50_ms", 0.5}, {"p90_ms", 0.9}, {"p99_ms", 0.99}, {"p99.9_ms", 0.999}, {"max_ms", 1}};
  std::printf(R"("targets": {)");
  for (std::size_t target = 0; target < options_->targets.size(); ++target) {
    std::vector<double> latencies;
    for (const Answer& answer : answers_) {
      if (answer.target == target) latencies.push_back(answer.latency);
    }
    std::sort(latencies.begin(), latencies.end());
    std::printf(R"(%s%s: {"answered": %zu)", target == 0 ? "" : ", ",
                quoted(options_->targets[target].path).c_str(), latencies.size());
    for (const auto& [name, share] : kShares) {
      std::printf(R"(, "%s": %.3f)", name, milliseconds(percentile(latencies, share)));
    }
    std::printf("}");
  }
  std::printf("}, ");
}

void Tally::print_lost() {
  std::array<std::size_t, kLossNames.size()> counts{};
  for (const Lost& one : lost_) ++counts.at(static_cast<std::size_t>(one.loss));
  std::printf(R"("failures": {)");
  const char* comma = "";
  for (std::size_t kind = 0; kind < counts.size(); ++kind) {
    if (counts.at(kind) == 0) continue;
    std::printf(R"(%s"%s": %zu)", comma, kLossNames.at(kind), counts.at(kind));
    comma = ", ";
  }
  std::printf(R"(}, "first_lost": [)");
  std::sort(lost_.begin(), lost_.end(), [](const Lost& a, const Lost& b) { return a.at < b.at; });
  comma = "";
  for (std::size_t i = 0; i < std::min(lost_.size(), kNamed); ++i) {
    const Lost& one = lost_[i];
    std::printf(R"(%s{"id": %lu, "target": %s, "kind": "%s", "planned_s": %.4f, "lost_s": %.4f, )"
                R"("why": %s})",
                comma, one.id, quoted(options_->targets[one.target].path).c_str(),
                kLossNames.at(static_cast<std::size_t>(one.loss)), one.planned, one.at,
                quoted(one.why).c_str());
    comma = ", ";
  }
  std::printf("], ");
}

// From the start on: a server that never answers is one long gap.
void Tally::print_gap() {
  std::sort(answers_.begin(), answers_.end(),
            [](const Answer& a, const Answer& b) { return a.at < b.at; });
  double longest = 0;
  double where = 0;
  double last = 0;
  const auto look = [&](double at) {
    if (at - last > longest) {
      longest = at - last;
      where = last;
    }
    last = at;
  };
  for (const Answer& answer : answers_) look(answer.at);
  if (!lost_.empty()) look(std::max(last, lost_.back().at));
  std::printf(R"("longest_gap": {"ms": %.3f, "from_s": %.4f}, )", milliseconds(longest), where);
}

// A dropped SYN is sent again after 1, 3 and 7 s. Beside each cluster, how many latencies lie just
// below: as many there mean a slow server and no dropped SYNs.
void Tally::print_clusters() const {
  constexpr double kEarly = 0.02;
  constexpr double kWidth = 0.2;
  std::printf(R"("clusters": {)");
  for (const double second : {1.0, 3.0, 7.0}) {
    const auto within = [&](double from) {
      return std::count_if(answers_.begin(), answers_.end(), [&](const Answer& answer) {
        return answer.latency >= from && answer.latency < from + kWidth;
      });
    };
    std::printf(R"(%s"%.1f": {"count": %ld, "just_below": %ld})", second == 1.0 ? "" : ", ", second,
                within(second - kEarly), within(second - kEarly - kWidth));
  }
  std::printf("}, ");
}

}  // namespace ostler::bench
