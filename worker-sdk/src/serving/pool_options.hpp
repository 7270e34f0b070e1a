// The pool's `worker:` settings as they reach a worker (OSTLER_ENV_WORKER_OPTIONS): `key=value`,
// separated by blanks. They override what the program gave.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ostler/options.hpp"

namespace ostler::serving {

class PoolOptions {
 public:
  // A key that no worker has is one line on stderr, and left out; so is a word that is no setting.
  explicit PoolOptions(std::string_view text);

  // Empty if the pool does not set it. Throws std::invalid_argument, naming key and value, if the
  // value cannot be.
  [[nodiscard]] std::optional<std::string> word(std::string_view key) const;
  [[nodiscard]] std::optional<std::uint64_t> number(std::string_view key, std::uint64_t least,
                                                    std::uint64_t most) const;
  [[nodiscard]] std::optional<std::chrono::milliseconds> duration(std::string_view key) const;
  // Separated by commas.
  [[nodiscard]] std::optional<std::vector<std::string>> list(std::string_view key) const;

  // class, threads and connections.
  void apply_to(serve_options& options) const;

 private:
  struct Setting {
    std::string key;
    std::string value;
  };
  std::vector<Setting> settings_;
};

const char* name_of(worker_class kind);

}  // namespace ostler::serving
