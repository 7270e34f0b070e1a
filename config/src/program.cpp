#include "config/src/program.hpp"

#include <elf.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string_view>

#include "config/src/descriptor.hpp"
#include "config/src/host.hpp"
#include "config/src/text.hpp"

namespace ostler::config {
namespace {

constexpr std::size_t kHead = 256;         // as much of a script's first line as the kernel reads
constexpr int kMostInterpreters = 5;       // and no longer a chain of them
constexpr std::size_t kMostLoader = 4096;  // PATH_MAX

struct Program {
  explicit Program(const std::string& path)
      : file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK)) {}
  // SIZE bytes at OFFSET, or as many as there are.
  [[nodiscard]] std::string read(std::size_t size, std::size_t offset) const {
    std::string out(size, '\0');
    const ssize_t count = pread(file.get(), out.data(), size, static_cast<off_t>(offset));
    out.resize(static_cast<std::size_t>(std::max<ssize_t>(count, 0)));
    return out;
  }
  template <class T>
  [[nodiscard]] std::optional<T> at(std::size_t offset) const {
    const std::string bytes = read(sizeof(T), offset);
    if (bytes.size() != sizeof(T)) return std::nullopt;
    T value{};
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
  Descriptor file;
};

// The loader that an ELF file of this machine's byte order names; empty if it needs none.
template <class Header, class Segment>
std::string loader_of(const Program& program) {
  const auto header = program.at<Header>(0);
  if (!header || header->e_phentsize != sizeof(Segment)) return {};
  for (std::size_t i = 0; i < header->e_phnum; ++i) {
    const auto segment = program.at<Segment>(header->e_phoff + i * sizeof(Segment));
    if (!segment) break;
    if (segment->p_type != PT_INTERP || segment->p_filesz > kMostLoader) continue;
    return program.read(segment->p_filesz, segment->p_offset).c_str();
  }
  return {};
}

std::string loader_of(const Program& program, std::string_view head) {
  constexpr unsigned char kOrder =
      __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? ELFDATA2LSB : ELFDATA2MSB;
  if (head.size() < EI_NIDENT || head[EI_DATA] != kOrder) return {};
  if (head[EI_CLASS] == ELFCLASS64) return loader_of<Elf64_Ehdr, Elf64_Phdr>(program);
  if (head[EI_CLASS] == ELFCLASS32) return loader_of<Elf32_Ehdr, Elf32_Phdr>(program);
  return {};
}

std::string_view trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t");
  return first == std::string_view::npos ? "" : text.substr(first);
}

// The first line of a script, behind its "#!": the interpreter, and all the rest as one argument,
// as the kernel has it (execve(2)).
struct FirstLine {
  std::string interpreter, argument;
};

FirstLine first_line_in(std::string_view head) {
  const std::string_view line = trimmed(head.substr(2, head.find('\n') - 2));
  const std::size_t end = std::min(line.find_first_of(" \t"), line.size());
  std::string_view rest = trimmed(line.substr(end));
  rest = rest.substr(0, rest.find_last_not_of(" \t") + 1);
  return {std::string(line.substr(0, end)), std::string(rest)};
}

// Why WHO cannot execute what is at PATH, as what follows "which".
std::string missing(const std::string& path, const Who& who) {
  struct stat status {};
  if (stat(path.c_str(), &status) != 0) {
    return errno == ENOENT || errno == ENOTDIR ? "does not exist" : "";
  }
  if (!S_ISREG(status.st_mode)) return "is no file that can be executed";
  const std::string barred = who.barred_by(path);
  if (!barred.empty()) return who.name() + " may not come to: the folder " + quote(barred);
  return who.may(X_OK, path) ? "" : who.name() + " may not execute";
}

constexpr const char* kCarriageReturn =
    "; the line ends in a carriage return, as on Windows: remove it";

// Why env(1) will not find what it is to execute: ARGUMENT is a name, or `-S` and a command line.
// Command lines with other options, quotes, escapes, variables or a PATH of their own are not
// checked.
std::string env_problem(const std::string& argument, const Who& who, const std::string& search) {
  constexpr std::string_view kSplit = "-S ";
  std::string_view rest = argument;
  const bool splits = rest.starts_with(kSplit);
  if (splits) rest = trimmed(rest.substr(kSplit.size()));
  if (splits && rest.find_first_of("\"'\\$") != rest.npos) return {};
  std::string_view name;
  do {
    const std::size_t end = splits ? std::min(rest.find_first_of(" \t"), rest.size()) : rest.size();
    name = rest.substr(0, end);
    if (name.starts_with("PATH=")) return {};
    rest = trimmed(rest.substr(end));
  } while (name.find('=') != std::string_view::npos);
  const bool elsewhere = name.find('/') != std::string_view::npos && !name.starts_with('/');
  if (name.empty() || name.starts_with('-') || elsewhere) return {};
  const Found found = find_executable(std::string(name), search, "/");
  std::string problem = "names " + quote(name) + " to 'env' in its first line";
  if (found.problem.empty()) {
    const std::string barred = missing(found.path, who);
    return barred.empty() ? "" : problem + ": " + quote(found.path) + ", which " + barred;
  }
  problem += ", but " + found.problem;
  if (name.ends_with('\r')) return problem + kCarriageReturn;
  if (name.find(' ') == std::string_view::npos) return problem;
  return problem + "; all behind 'env' is one name, unless it begins with -S";
}

// Who executes a program, with which PATH.
struct Executor {
  const Who& who;
  const std::optional<std::string>& search;
};

ProgramFault fault_of(const std::string& path, const Executor& executor, int depth);

ProgramFault script_fault(const std::string& path, std::string_view head, const Executor& executor,
                          int depth) {
  const Who& who = executor.who;
  if (!who.may(R_OK, path)) return {"is a script, and " + who.name() + " may not read it"};
  const auto [interpreter, argument] = first_line_in(head);
  if (interpreter.empty()) return {"names no interpreter behind the '#!' in its first line"};
  if (!interpreter.starts_with('/')) return {};  // from wherever it is started in
  const std::string names = "names the interpreter " + quote(interpreter) + " in its first line, ";
  if (std::string problem = missing(interpreter, who); !problem.empty()) {
    const bool windows = interpreter.ends_with('\r');
    return {names + "which " + problem + (windows ? kCarriageReturn : "")};
  }
  if (executor.search && interpreter.ends_with("/env")) {
    if (std::string problem = env_problem(argument, who, *executor.search); !problem.empty()) {
      return {std::move(problem)};
    }
  }
  ProgramFault inner = fault_of(interpreter, executor, depth + 1);
  if (!inner.problem.empty()) inner.problem = names + "which " + inner.problem;
  return inner;
}

ProgramFault fault_of(const std::string& path, const Executor& executor, int depth) {
  const Program program(path);
  if (program.file.get() < 0 || depth > kMostInterpreters) return {};
  const std::string head = program.read(kHead, 0);
  if (head.starts_with("#!")) return script_fault(path, head, executor, depth);
  if (head.starts_with(ELFMAG)) {
    const std::string loader = loader_of(program, head);
    if (loader.empty() || missing(loader, executor.who) != "does not exist") return {};
    return {"needs the loader " + quote(loader) +
            ", which does not exist; it was made for another system"};
  }
  return {"is neither an ELF file nor a script with '#!' in its first line", false};
}

}  // namespace

ProgramFault program_fault(const std::string& path, const Who& who,
                           const std::optional<std::string>& search) {
  return fault_of(path, {who, search}, 0);
}

}  // namespace ostler::config
