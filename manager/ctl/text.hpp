// Text for people: what others wrote made harmless, durations and sizes, aligned tables.
#pragma once

#include <iosfwd>
#include <string>
#include <string_view>
#include <vector>

namespace ostler::ctl {

// Everything that could move a cursor, change a colour, end a line or turn the direction of writing
// is shown as an escape (\n, \x1b, \u202e), and so is what is not UTF-8.
std::string printable(std::string_view text);

std::string duration(double seconds);  // "0.31s", "12s", "3m05s", "2h04m", "3d04h"
std::string size(double bytes);        // "512 B", "5.0 MiB", "12 GiB"

enum class Style { kPlain, kStrong, kGood, kWarn, kBad };

// Where output goes. Colours only if `color`. Does not own the streams.
struct Terminal {
  std::ostream& out;
  std::ostream& err;
  bool color = false;
  [[nodiscard]] std::string paint(Style style, std::string_view text) const;
};

struct Column {
  std::string name;
  bool right = false;  // numbers
};

// Columns as wide as their widest cell, two spaces apart. Cells must be printable.
class Table {
 public:
  struct Cell {
    std::string text;
    Style style = Style::kPlain;
  };
  explicit Table(std::vector<Column> columns);
  void row(std::vector<Cell> cells);  // as many as there are columns
  void print(const Terminal& terminal) const;

 private:
  std::vector<Column> columns_;
  std::vector<std::vector<Cell>> rows_;
};

}  // namespace ostler::ctl
