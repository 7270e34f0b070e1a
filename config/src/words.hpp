// A command line, split into words as a shell would, with no shell run.
//
// Blanks separate words. Single quotes keep all, double quotes all but `\` before `"`, `\`, `$` and
// a backquote; outside of quotes `\` keeps the next character. What only a shell could do (pipes,
// redirections, `$NAME`, backquotes) is a fault and not passed on as text by mistake. Braces,
// globs, `~` and `#` are left as they are.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace ostler::config {

struct Words {
  std::vector<std::string> words;
  std::string problem;  // empty if the text could be split
};
Words split_words(std::string_view text);

}  // namespace ostler::config
