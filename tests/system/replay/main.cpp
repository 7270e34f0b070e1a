// ostler-replay FILE: gives the events of a trace to a fresh core, which must decide the same.
// Exit status 0 if it did; 1, with the first difference, if it did not; 2 for wrong usage.
#include <fstream>
#include <iostream>
#include <iterator>
#include <string>

#include "core/trace.hpp"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: ostler-replay FILE\n";
    return 2;
  }
  std::ifstream file(argv[1]);
  if (!file) {
    std::cerr << "ostler-replay: cannot read " << argv[1] << "\n";
    return 2;
  }
  const std::string trace{std::istreambuf_iterator<char>(file), {}};
  const std::string difference = ostler::core::replay(trace);
  if (difference.empty()) return 0;
  std::cout << difference << "\n";
  return 1;
}
