// Reads single values out of the tree into the model. Each function leaves its result untouched and
// adds a fault, saying what would be right, if the value is not what it must be.
#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "config/src/host.hpp"
#include "config/src/model.hpp"
#include "config/src/text.hpp"
#include "config/src/tree.hpp"

namespace ostler::config {

constexpr Duration kShortest = std::chrono::milliseconds(1);
constexpr Duration kLongest = std::chrono::hours(24 * 365);

template <class E>
using Choice = std::pair<std::string_view, E>;

class Reader {
 public:
  Reader(Faults& faults, const Host& host) : faults_(faults), host_(host) {}

  [[nodiscard]] Faults& faults() { return faults_; }
  [[nodiscard]] const Host& host() const { return host_; }

  // A folder that need not be there: the manager makes it.
  void expect_folder(std::string folder) { expected_ = std::move(folder); }
  [[nodiscard]] bool is_expected(std::string_view folder) const {
    return !folder.empty() && folder == expected_;
  }
  // The file is for a manager that runs: its log and its control socket are open already.
  void running(bool running) { running_ = running; }
  [[nodiscard]] bool is_running() const { return running_; }

  // "must be WHAT, not 'the value'"
  void wrong(const At& at, std::string_view what);
  // "WHAT is not available in this version"
  void later(const At& at, std::string_view what);
  void later(const Place& place, std::string_view path, std::string_view what);

  bool text(const At& at, std::string_view what, std::string& out);
  // A path, made absolute: relative ones are relative to the file that they are written in.
  bool path(const At& at, std::string& out);
  bool boolean(const At& at, bool& out);
  bool whole(const At& at, std::int64_t least, std::int64_t most, int& out);
  bool duration(const At& at, Duration least, Duration& out);
  bool size(const At& at, std::uint64_t least, std::uint64_t most, std::uint64_t& out);
  bool mode(const At& at, unsigned& out);
  // A user or group: a name or a number.
  bool account(const At& at, std::optional<std::string>& out);
  // Every item of a list of text, or nothing.
  bool texts(const At& at, std::string_view what, std::vector<std::string>& out);

  template <class E, std::size_t N>
  bool choice(const At& at, const std::array<Choice<E>, N>& choices, E& out) {
    std::array<std::string_view, N> names;
    for (std::size_t i = 0; i < N; ++i) {
      if (at.node->kind == NodeKind::kScalar && at.node->text == choices[i].first) {
        out = choices[i].second;
        return true;
      }
      names[i] = choices[i].first;
    }
    wrong_word(at, names);
    return false;
  }
  // "must be one of NAMES, not 'x'; did you mean 'y'?"
  void wrong_word(const At& at, std::span<const std::string_view> names,
                  std::string_view more = {});

  // Remembers that the value at PATH is faulty, so that no fault follows from it.
  void mark_faulty(const std::string& path) { faulty_.insert(path); }
  [[nodiscard]] bool is_faulty(const std::string& path) const { return faulty_.contains(path); }

 private:
  Faults& faults_;
  const Host& host_;
  std::set<std::string> faulty_;
  std::string expected_;
  bool running_ = false;
};

// `off`, however quoted; also `false`, which is what YAML 1.1 tools make of it.
bool is_off(const Node& node);
// "a list", "'text'", as it ends a message.
std::string found(const Node& node);

}  // namespace ostler::config
