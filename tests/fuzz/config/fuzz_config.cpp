// Whatever a file or a command line holds: the loader answers with faults that can be shown to
// people, or with a configuration that prints as it reads.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <iostream>
#include <limits>
#include <string>
#include <string_view>

#include "config/src/address.hpp"
#include "config/src/env_file.hpp"
#include "config/src/loader.hpp"
#include "config/src/text.hpp"
#include "config/src/words.hpp"

namespace {

using namespace ostler::config;

void require(bool holds, std::string_view what, std::string_view text) {
  if (holds) return;
  std::cerr << "broken: " << what << "\n" << text << "\n";
  std::abort();
}

Host machine() {
  Host host;
  host.capabilities = std::numeric_limits<std::uint64_t>::max();
  host.path = "/usr/bin:/bin";
  host.folder = "/";
  return host;
}

void check_text(const std::string& text) {
  require(!first_invalid_utf8(text), "a message is UTF-8", text);
  for (const char c : text) {
    require(static_cast<unsigned char>(c) >= 0x20 && c != 0x7F, "a message is one line", text);
  }
}

void check(const Host& host, const Loaded& loaded) {
  for (const Fault& fault : loaded.faults) {
    require(!fault.message.empty(), "a fault says what is wrong", fault.text());
    check_text(fault.text());
  }
  for (const std::string& warning : loaded.warnings) check_text(warning);
  if (!loaded.ok()) return;
  const std::string printed = print(loaded.config);
  Loaded again = load_text(host, printed, "fuzz.yaml", {});
  again.config.file = loaded.config.file;
  require(again.ok(), "what is printed has no fault", printed);
  require(again.config == loaded.config, "what is printed reads back the same", printed);
}

void check_parts(const std::string& text) {
  if (const auto address = parse_address(text).address) {
    const std::string spelling = address->text();
    require(parse_address(spelling).address == address, "an address has one spelling", spelling);
  }
  check_text(parse_address(text).problem);
  check_text(split_words(text).problem);
  for (const auto& [line, problem] : parse_env_file(text).problems) check_text(problem);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): the name libFuzzer calls
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Host kHost = machine();
  std::string text(size, '\0');
  for (std::size_t i = 0; i < size; ++i) text[i] = static_cast<char>(data[i]);
  check_parts(text);
  // Its own input is what is looked at, and not the files of the machine.
  for (const std::string_view file : {"include", "env_file", "env-file"}) {
    if (text.find(file) != std::string::npos) return 0;
  }
  check(kHost, load_text(kHost, text, "fuzz.yaml", {}));
  const std::size_t equals = std::min(text.find('='), text.size());
  LoadOptions options;
  options.overrides = {{text.substr(0, equals), text.substr(std::min(equals + 1, text.size()))}};
  check(kHost, load_text(kHost, "pools: {app: {command: sh}}", "fuzz.yaml", options));
  check(kHost,
        load_options(kHost, {{text.substr(0, equals), options.overrides[0].value}}, {"sh"}, {}));
  return 0;
}
