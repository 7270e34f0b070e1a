#include "config/src/words.hpp"

#include "config/src/text.hpp"

namespace ostler::config {
namespace {

constexpr std::string_view kBlank = " \t\n\r";
constexpr std::string_view kOperators = "|&;<>()";
constexpr std::string_view kEscapable = "\"\\$`";

bool is_one_of(char c, std::string_view set) {
  return set.find(c) != std::string_view::npos;
}

// Whether `$` here would have been expanded: $NAME, ${NAME}, $(command), $1, $?.
bool expands(std::string_view rest) {
  if (rest.size() < 2) return false;
  const char c = rest[1];
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         is_one_of(c, "_{(?$!#@*-");
}

class Splitter {
 public:
  explicit Splitter(std::string_view text) : rest_(text) {}

  Words run() {
    while (!rest_.empty() && out_.problem.empty()) step();
    if (out_.problem.empty() && quote_ != 0) {
      out_.problem = std::string("a quote (") + quote_ + ") that is never closed";
    }
    end_word();
    return std::move(out_);
  }

 private:
  void step() {
    const char c = rest_.front();
    if (quote_ == '\'') {
      c == '\'' ? close() : take(c);
    } else if (c == '\\') {
      escape();
    } else if (c == '`' || (c == '$' && expands(rest_))) {
      refuse(rest_.substr(0, c == '`' ? 1 : 2));
    } else if (quote_ == '"') {
      c == '"' ? close() : take(c);
    } else {
      plain(c);
    }
  }

  void plain(char c) {
    if (c == '\'' || c == '"') {
      quote_ = c;
      in_word_ = true;
      rest_.remove_prefix(1);
    } else if (is_one_of(c, kBlank)) {
      end_word();
      rest_.remove_prefix(1);
    } else if (is_one_of(c, kOperators)) {
      refuse(rest_.substr(0, 1));
    } else {
      take(c);
    }
  }

  void escape() {
    if (rest_.size() < 2) {
      out_.problem = "a backslash at the end, with nothing to keep";
      return;
    }
    const char next = rest_[1];
    if (next == '\n') return rest_.remove_prefix(2);  // the line goes on in the next
    if (quote_ == '"' && !is_one_of(next, kEscapable)) return take('\\');
    rest_.remove_prefix(1);
    take(next);
  }

  void refuse(std::string_view what) {
    out_.problem = "no shell is run, so " + quote(what) +
                   " does nothing; put it in single quotes if it is meant as it stands, or run a "
                   "shell: [/bin/sh, -c, \"…\"]";
  }

  void take(char c) {
    word_ += c;
    in_word_ = true;
    rest_.remove_prefix(1);
  }

  void close() {
    quote_ = 0;
    rest_.remove_prefix(1);
  }

  void end_word() {
    if (in_word_) out_.words.push_back(std::move(word_));
    word_.clear();
    in_word_ = false;
  }

  std::string_view rest_;
  Words out_;
  std::string word_;
  bool in_word_ = false;
  char quote_ = 0;
};

}  // namespace

Words split_words(std::string_view text) {
  return Splitter(text).run();
}

}  // namespace ostler::config
