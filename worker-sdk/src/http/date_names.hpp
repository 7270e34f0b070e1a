// The names of days and months as protocols have them, whatever the program's locale says.
#pragma once

#include <array>
#include <cstddef>
#include <ctime>
#include <string>

namespace ostler::http {

// Of a broken-down time as gmtime_r(3) and localtime_r(3) make it.
inline std::string day_name(const std::tm& parts) {
  static constexpr std::array kNames{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
  return kNames.at(static_cast<std::size_t>(parts.tm_wday));
}

inline std::string month_name(const std::tm& parts) {
  static constexpr std::array kNames{"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                     "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
  return kNames.at(static_cast<std::size_t>(parts.tm_mon));
}

}  // namespace ostler::http
