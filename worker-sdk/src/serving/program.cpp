#include "serving/program.hpp"

#include <getopt.h>

#include <array>
#include <cerrno>  // program_invocation_short_name
#include <cstdio>
#include <cstdlib>

namespace ostler::serving {

void complain(const char* what) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
}

std::string reason_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    return known.what();
  } catch (...) {
    return "an exception that is no std::exception";
  }
}

std::optional<int> parse_flags(int argc, char** argv, const char* protocol, std::string& listen) {
  static const std::array<option, 3> kOptions{{{"listen", required_argument, nullptr, 'l'},
                                               {"help", no_argument, nullptr, 'h'},
                                               {nullptr, 0, nullptr, 0}}};
  int flag = 0;
  while ((flag = ::getopt_long(argc, argv, "", kOptions.data(), nullptr)) == 'l') listen = optarg;
  if (flag == -1 && optind == argc) return std::nullopt;
  std::fprintf(flag == 'h' ? stdout : stderr,
               "usage: %s [--listen tcp://IP:PORT | --listen unix:///PATH]\n\n"
               "Serves %s on the listeners inherited from ostlerd or systemd, or on one of its "
               "own.\n",
               program_invocation_short_name, protocol);
  return flag == 'h' ? EXIT_SUCCESS : kUsageError;
}

}  // namespace ostler::serving
