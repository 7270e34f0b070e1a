#include "stable.hpp"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <stdexcept>

namespace ostler::config {

Scratch::Scratch() {
  std::string pattern = std::filesystem::temp_directory_path() / "ostler-config-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no scratch folder");
  path_ = std::filesystem::canonical(pattern).string();
}

Scratch::~Scratch() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string Scratch::operator/(std::string_view name) const {
  return path_ + "/" + std::string(name);
}

std::string Scratch::write(std::string_view name, std::string_view text, unsigned mode) const {
  const std::filesystem::path full = *this / name;
  std::filesystem::create_directories(full.parent_path());
  std::ofstream(full, std::ios::binary) << text;
  if (chmod(full.c_str(), mode) != 0) throw std::runtime_error("chmod " + full.string());
  return full.string();
}

std::string Scratch::folder(std::string_view name, unsigned mode) const {
  const std::filesystem::path full = *this / name;
  std::filesystem::create_directories(full);
  if (chmod(full.c_str(), mode) != 0) throw std::runtime_error("chmod " + full.string());
  return full.string();
}

Stable::Stable() {
  scratch.write("bin/app", "#!/bin/sh\n", 0755);
  scratch.write("bin/data", "no program\n", 0644);
  scratch.folder("bin/folder");
  if (chmod(scratch.path().c_str(), 0755) != 0) throw std::runtime_error("chmod");
  host = privileged(Host::current());
  host.path = scratch / "bin";
  host.folder = scratch.path();
}

Loaded Stable::load(std::string_view text, const LoadOptions& options) const {
  return load_text(host, text, "t.yaml", options);
}

Loaded Stable::load_file(std::string_view name, const LoadOptions& options) const {
  return config::load_file(host, scratch / name, options);
}

Lines Stable::faults(std::string_view text, const std::vector<Override>& overrides) const {
  LoadOptions options;
  options.overrides = overrides;
  return texts(load(text, options).faults);
}

Lines Stable::pool_faults(std::string_view lines) const {
  return faults("pools:\n app:\n  command: app\n" + std::string(lines) + "\n");
}

Pool Stable::pool(std::string_view lines) const {
  const Loaded loaded = load("pools:\n app:\n  command: app\n" + std::string(lines) + "\n");
  REQUIRE(texts(loaded.faults) == Lines{});
  return loaded.config.pools.at("app");
}

Host ordinary(Host host) {
  host.uid = 54321;
  host.gid = 54321;
  host.groups = {54321};
  host.capabilities = 0;
  host.first_free_port = 1024;
  return host;
}

Host privileged(Host host) {
  host.uid = 0;
  host.gid = 0;
  host.groups = {0};
  host.capabilities = std::numeric_limits<std::uint64_t>::max();
  return host;
}

bool running_as_root() {
  return geteuid() == 0;
}

bool only_root_writes(const std::string& folder) {
  for (std::filesystem::path path = folder;; path = path.parent_path()) {
    struct stat status {};
    if (stat(path.c_str(), &status) != 0 || status.st_uid != 0) return false;
    const bool open = (status.st_mode & (S_IWGRP | S_IWOTH)) != 0;
    if (open && (status.st_mode & S_ISVTX) == 0) return false;
    if (path == path.parent_path()) return true;
  }
}

void skip(const std::string& reason) {
  MESSAGE("skipped: ", reason);
}

Lines texts(const std::vector<Fault>& faults) {
  Lines out;
  for (const Fault& fault : faults) out.push_back(fault.text());
  return out;
}

bool has(const Lines& lines, std::initializer_list<std::string_view> parts) {
  return std::any_of(lines.begin(), lines.end(), [&parts](const std::string& line) {
    return std::all_of(parts.begin(), parts.end(), [&line](std::string_view part) {
      return line.find(part) != std::string::npos;
    });
  });
}

std::string read_text(const std::string& file) {
  std::ifstream stream(file, std::ios::binary);
  REQUIRE_MESSAGE(stream.good(), file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

}  // namespace ostler::config
