#include "config/src/places.hpp"

#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <optional>
#include <set>
#include <utility>

#include "config/src/access.hpp"
#include "config/src/files.hpp"
#include "config/src/program.hpp"
#include "config/src/tokens.hpp"

namespace ostler::config {
namespace {

// What `output` stands for, as far as that is known: not the generation, and the slots only if
// their number is written down.
std::set<std::string> output_paths(const Pool& pool) {
  constexpr int kMost = 64;  // of slots that are looked at
  const auto* const number = std::get_if<int>(&pool.workers);
  const int slots = number == nullptr ? 1 : std::min(*number, kMost);
  std::set<std::string> paths;
  for (int slot = 0; slot < slots; ++slot) {
    const auto value = [&](const Token& token) -> std::optional<std::string> {
      if (token.kind == TokenKind::kPool) return pool.name;
      if (token.kind == TokenKind::kSlot) return std::to_string(slot);
      return std::nullopt;
    };
    std::string path = replace_tokens(pool.output.path, {}, value);
    const std::size_t unknown = path.find("{generation}");
    if (unknown != std::string::npos) path.replace(unknown, std::string::npos, "1");
    paths.insert(std::move(path));
  }
  return paths;
}

constexpr const char* kLogOutput = "log.output";

class PlaceCheck {
 public:
  PlaceCheck(Reader& reader, PoolDraft& draft)
      : reader_(reader), draft_(draft), pool_(draft.pool), host_(reader.host()) {}

  void run() {
    if (faulty("user") || faulty("group")) return;
    const Who worker = who_works();
    check_directory(worker);
    check_program("command", pool_.executable, worker);
    if (pool_.health) check_program("health.exec", pool_.health->executable, worker);
    check_output();
    check_sockets();
  }

 private:
  [[nodiscard]] At at(std::string_view key) const { return descend(draft_.at, key); }
  [[nodiscard]] bool faulty(std::string_view key) const { return reader_.is_faulty(at(key).path); }
  void fault(const At& where, std::string message) {
    reader_.faults().add(where, std::move(message));
    reader_.mark_faulty(where.path);
  }

  // As resolve_identity() has it: without the right to change them, ids and groups stay.
  [[nodiscard]] Who who_works() const {
    if ((!pool_.user && !pool_.group) || !host_.may_set_group()) return Who::manager();
    if (pool_.user) return Who(account_of(*pool_.user, pool_.group));
    return Who(Account{host_.uid, {find_group(*pool_.group).value_or(0)}});
  }

  // Where the manager is itself, its workers may be.
  void check_directory(const Who& worker) {
    if (!pool_.directory || !pool_.folder || faulty("directory")) return;
    const std::string barred = worker.barred_by(*pool_.folder + "/x");
    if (!barred.empty()) fault(at("directory"), may_not_enter(worker, barred));
  }

  void check_program(std::string_view key, const std::string& path, const Who& worker) {
    if (path.empty() || faulty(key)) return;
    const std::string barred = worker.barred_by(path);
    if (!barred.empty()) {
      return fault(at(key), quote(path) + ": " + may_not_enter(worker, barred));
    }
    if (!worker.may(X_OK, path)) {
      return fault(at(key), worker.name() + " may not execute " + quote(path) + " (chmod o+x " +
                                quote(path) + ", or take another user)");
    }
    ProgramFault found = program_fault(path, worker, host_.path_with(pool_.env));
    if (found.problem.empty()) return;
    std::string message = quote(path) + " " + std::move(found.problem);
    if (found.certain) return fault(at(key), std::move(message));
    draft_.warnings.push_back(fault_at(at(key).node->place, at(key).path, std::move(message)));
  }

  static std::string may_not_enter(const Who& who, const std::string& folder) {
    return who.name() + " may not enter the folder " + quote(folder) + " (chmod o+x " +
           quote(folder) + ", or take another user)";
  }

  void check_output() {
    if (pool_.output.mode != OutputMode::kFile || faulty("output")) return;
    for (const std::string& path : output_paths(pool_)) {
      const std::string folder = std::filesystem::path(path).parent_path().string();
      if (reader_.is_expected(folder)) continue;
      std::string problem = log_file_problem(path, Who::manager());
      if (!problem.empty()) return fault(at("output"), std::move(problem));
    }
  }

  void check_sockets() {
    for (std::size_t i = 0; i < pool_.listen.size(); ++i) {
      const Address& address = pool_.listen[i].address;
      if (address.kind != AddressKind::kUnixPath) continue;
      const std::string folder = std::filesystem::path(address.path).parent_path().string();
      if (reader_.is_expected(folder)) continue;
      std::string problem = socket_problem(address.path, Who::manager());
      if (!problem.empty()) fault(draft_.listeners[i], std::move(problem));
    }
  }

  Reader& reader_;
  PoolDraft& draft_;
  const Pool& pool_;
  const Host& host_;
};

}  // namespace

void check_places(Reader& reader, PoolDraft& draft) {
  PlaceCheck(reader, draft).run();
}

OwnPaths own_paths(Reader& reader, const At& root, const Config& config,
                   const std::string& control_socket) {
  OwnPaths own;
  const auto add = [&](const std::string& path, const char* what) {
    own.try_emplace(in_real_folder(path), what);
  };
  if (!config.file.empty()) add(config.file, "the configuration");
  if (!control_socket.empty()) {
    add(control_socket, "the control socket");
    add(control_socket + ".lock", "the lock of the control socket");
    add(control_socket + ".notify", "the folder of the notify sockets");
  }
  if (config.log.output != LogOutput::kFile) return own;
  const auto [other, fresh] = own.try_emplace(in_real_folder(config.log.path), kLogOutput);
  if (!fresh) {
    reader.faults().add(descend(root, "log.output"),
                        quote(config.log.path) + " is taken by " + other->second);
  }
  return own;
}

void check_paths_apart(Reader& reader, const std::vector<PoolDraft>& drafts, OwnPaths own) {
  const auto taken = [&](const At& where, const std::string& path) {
    const auto found = own.find(in_real_folder(path));
    if (found == own.end()) return false;
    reader.faults().add(where, quote(path) + " is taken by " + found->second);
    return true;
  };
  OwnPaths sockets;
  for (const PoolDraft& draft : drafts) {
    for (std::size_t i = 0; i < draft.pool.listen.size(); ++i) {
      const Address& address = draft.pool.listen[i].address;
      if (address.kind != AddressKind::kUnixPath || taken(draft.listeners[i], address.path))
        continue;
      sockets.try_emplace(in_real_folder(address.path),
                          "a socket of pool " + quote(draft.pool.name));
    }
  }
  own.merge(sockets);
  std::erase_if(own, [](const auto& entry) { return entry.second == kLogOutput; });
  for (const PoolDraft& draft : drafts) {
    if (draft.pool.output.mode != OutputMode::kFile) continue;
    for (const std::string& path : output_paths(draft.pool)) {
      if (taken(descend(draft.at, "output"), path)) break;
    }
  }
}

}  // namespace ostler::config
