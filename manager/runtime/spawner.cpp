#include "runtime/spawner.hpp"

#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string_view>
#include <system_error>

#include "config/src/host.hpp"
#include "config/src/program.hpp"
#include "config/src/text.hpp"

// The child runs on a stack that sanitizers know nothing of, and leaves functions without
// returning from them.
#if defined(__clang__)
#define OSTLER_IN_CHILD __attribute__((disable_sanitizer_instrumentation))
#else
#define OSTLER_IN_CHILD __attribute__((no_sanitize("address", "thread", "undefined")))
#endif

// glibc's clone(2) under the name that sanitizers do not intercept: theirs takes it for a fork.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming): it is not ours
extern "C" int __clone(int (*function)(void*), void* stack, int flags, void* argument, ...);

namespace ostler::runtime {
namespace {

static_assert(sizeof(long) == 8, "the raw system calls below are those of 64-bit Linux");

// --- In the child --------------------------------------------------------------------------------
//
// Memory is the manager's own, so: no allocation, no locks, no libc but syscall(2). glibc's
// setresuid and its like would signal every thread of the process, which here are the manager's.

// One name for each, in the same order.
// clang-format off
enum class Stage : std::uint8_t {
  kNone, kClone, kStdin, kSetsid, kDup, kCloseRange, kSetrlimit, kUmask, kBounding, kSetgroups,
  kSetresgid, kSetresuid, kCapset, kVerify, kChdir, kNoNewPrivs, kPrctl, kParent, kSignals, kExec,
};
constexpr std::array kStageNames = {
  "", "clone", "open /dev/null", "setsid", "dup", "close_range", "setrlimit", "umask", "bounding",
  "setgroups", "setresgid", "setresuid", "capset", "verify", "chdir", "no_new_privs", "prctl",
  "parent", "signals", "exec",
};
// clang-format on
static_assert(kStageNames.size() == static_cast<std::size_t>(Stage::kExec) + 1);

// The variables that name the process they are meant for.
constexpr std::array<std::string_view, 2> kPidVariables = {"LISTEN_PID=", "WATCHDOG_PID="};
constexpr std::size_t kPidDigits = 20;

// All that the child needs, prepared by the parent, and what the child has to say. Plain data: the
// child calls nothing that a sanitizer or a checked library has its hands in.
struct Child {
  const char* executable = nullptr;
  char* const* argv = nullptr;
  char* const* env = nullptr;
  char* pid_digits[kPidVariables.size()] = {};  // where they go, NULs behind; or nullptr
  const char* directory = nullptr;              // or nullptr, as for the others
  bool directory_is_own = false;
  const mode_t* umask = nullptr;
  const rlimit* open_files = nullptr;
  const rlimit* tag = nullptr;
  const Identity* identity = nullptr;
  bool no_new_privileges = false;
  const gid_t* groups = nullptr;
  std::size_t group_count = 0;
  int* sources = nullptr;  // sources[n] becomes descriptor n
  int source_count = 0;
  int death_signal = 0;
  pid_t parent = 0;
  volatile Stage failed = Stage::kNone;
  volatile int error = 0;
};

OSTLER_IN_CHILD bool passed(Child& child, Stage stage, long result) {
  if (result >= 0) return true;
  child.error = errno;
  child.failed = stage;
  return false;
}

OSTLER_IN_CHILD bool refuse(Child& child, Stage stage, int error) {
  child.error = error;
  child.failed = stage;
  return false;
}

// Every source is first brought out of the range that is written to, so that no order of numbers
// can overwrite one that is still needed. This comes before the limit of open files, which may be
// lower than what the manager holds and would leave no number to duplicate to.
OSTLER_IN_CHILD bool place_descriptors(Child& child) {
  const int count = child.source_count;
  for (int i = 0; i < count; ++i) {
    if (child.sources[i] >= count) continue;
    const long moved = syscall(SYS_fcntl, child.sources[i], F_DUPFD_CLOEXEC, count);
    if (!passed(child, Stage::kDup, moved)) return false;
    child.sources[i] = static_cast<int>(moved);
  }
  for (int i = 0; i < count; ++i) {
    if (!passed(child, Stage::kDup, syscall(SYS_dup3, child.sources[i], i, 0))) return false;
  }
  if (syscall(SYS_close_range, count, ~0U, 0) == 0) return true;
  // A kernel before 5.9, or a container's filter that knows no call newer than itself. All that
  // the manager opens is close-on-exec: nothing is inherited but what it was itself given.
  if (errno == ENOSYS || errno == EPERM) return true;
  return passed(child, Stage::kCloseRange, -1);
}

OSTLER_IN_CHILD bool apply_limits(Child& child) {
  // Where a sandbox refuses it, descendants are known by their session alone.
  if (child.tag != nullptr) syscall(SYS_prlimit64, 0, RLIMIT_RTTIME, child.tag, nullptr);
  if (child.open_files != nullptr) {
    const long result = syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, child.open_files, nullptr);
    if (!passed(child, Stage::kSetrlimit, result)) return false;
  }
  return child.umask == nullptr || passed(child, Stage::kUmask, syscall(SYS_umask, *child.umask));
}

// Back from what was switched to there must be no way, so capabilities go as well. The kernel takes
// them only from a root that becomes another user, not from a manager that has but CAP_SETUID.
OSTLER_IN_CHILD bool drop_capabilities(Child& child) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  return passed(child, Stage::kCapset, syscall(SYS_capset, &header, none));
}

// Believed only when seen.
OSTLER_IN_CHILD bool verify_identity(Child& child, uid_t uid, gid_t gid) {
  uid_t uids[3] = {};
  gid_t gids[3] = {};
  if (!passed(child, Stage::kVerify, syscall(SYS_getresuid, &uids[0], &uids[1], &uids[2])) ||
      !passed(child, Stage::kVerify, syscall(SYS_getresgid, &gids[0], &gids[1], &gids[2]))) {
    return false;
  }
  bool same = true;
  for (const uid_t found : uids) same = same && found == uid;
  for (const gid_t found : gids) same = same && found == gid;
  if (!same || (uid != 0 && syscall(SYS_setuid, 0) == 0)) {
    return refuse(child, Stage::kVerify, EPERM);
  }
  return true;
}

// No exec gives a capability that is not in the bounding set. Without CAP_SETPCAP the set stays as
// it is, and no_new_privs has to suffice.
OSTLER_IN_CHILD bool empty_bounding_set(Child& child) {
  for (int capability = 0; capability < 64; ++capability) {
    if (syscall(SYS_prctl, PR_CAPBSET_DROP, capability, 0, 0, 0) == 0) continue;
    if (errno == EINVAL || errno == EPERM) return true;  // beyond the last one, or not allowed
    return passed(child, Stage::kBounding, -1);
  }
  return true;
}

OSTLER_IN_CHILD bool switch_identity(Child& child) {
  if (child.identity == nullptr) return true;
  const uid_t uid = child.identity->uid;
  const gid_t gid = child.identity->gid;
  if (child.no_new_privileges && uid != 0 && !empty_bounding_set(child)) return false;
  const long grouped = syscall(SYS_setgroups, child.group_count, child.groups);
  return passed(child, Stage::kSetgroups, grouped) &&
         passed(child, Stage::kSetresgid, syscall(SYS_setresgid, gid, gid, gid)) &&
         passed(child, Stage::kSetresuid, syscall(SYS_setresuid, uid, uid, uid)) &&
         (uid == 0 || drop_capabilities(child)) && verify_identity(child, uid, gid);
}

// As the worker's user, whose permissions are those that count: a directory that it cannot enter
// is refused here and not by a puzzled worker. Where the manager is itself, its children may be.
OSTLER_IN_CHILD bool enter_directory(Child& child, bool own) {
  return child.directory == nullptr || child.directory_is_own != own ||
         passed(child, Stage::kChdir, syscall(SYS_chdir, child.directory));
}

OSTLER_IN_CHILD bool renounce_privileges(Child& child) {
  return !child.no_new_privileges ||
         passed(child, Stage::kNoNewPrivs, syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

// After the ids, whose change clears the death signal. A manager that died before this call sends
// nothing any more: then the parent is another process by now.
OSTLER_IN_CHILD bool follow_parent(Child& child) {
  const long asked = syscall(SYS_prctl, PR_SET_PDEATHSIG, child.death_signal, 0, 0, 0);
  if (!passed(child, Stage::kPrctl, asked)) return false;
  return syscall(SYS_getppid) == child.parent || refuse(child, Stage::kParent, ESRCH);
}

// getpid() of libc would do as well today; it cached the parent's once.
OSTLER_IN_CHILD void write_pid(Child& child) {
  for (char* place : child.pid_digits) {
    if (place == nullptr) continue;
    char digits[kPidDigits] = {};
    std::size_t count = 0;
    for (long pid = syscall(SYS_getpid); pid > 0; pid /= 10) {
      digits[count++] = static_cast<char>('0' + pid % 10);
    }
    while (count > 0) *place++ = digits[--count];
  }
}

// Ignored signals stay ignored across exec, so all go back to the default, and before the mask is
// lifted: a handler of the manager must not run in here. glibc hides two of the kernel's 64.
OSTLER_IN_CHILD bool reset_signals(Child& child) {
  constexpr std::size_t kMaskBytes = 8;
  static constexpr std::uint64_t kDefaultAction[8] = {};  // the kernel's struct: SIG_DFL, no flags
  static constexpr std::uint64_t kNoSignals = 0;
  for (int signal = 1; signal <= 64; ++signal) {
    if (signal == SIGKILL || signal == SIGSTOP) continue;
    const long result = syscall(SYS_rt_sigaction, signal, kDefaultAction, nullptr, kMaskBytes);
    if (result < 0 && errno != EINVAL) return passed(child, Stage::kSignals, result);
  }
  const long result = syscall(SYS_rt_sigprocmask, SIG_SETMASK, &kNoSignals, nullptr, kMaskBytes);
  return passed(child, Stage::kSignals, result);
}

OSTLER_IN_CHILD int child_main(void* argument) {
  Child& child = *static_cast<Child*>(argument);
  if (passed(child, Stage::kSetsid, syscall(SYS_setsid)) && place_descriptors(child) &&
      apply_limits(child) && enter_directory(child, true) && switch_identity(child) &&
      enter_directory(child, false) && renounce_privileges(child) && follow_parent(child)) {
    write_pid(child);
    if (reset_signals(child)) {
      passed(child, Stage::kExec, syscall(SYS_execve, child.executable, child.argv, child.env));
    }
  }
  syscall(SYS_exit_group, 127);
  __builtin_unreachable();
}

// --- In the parent -------------------------------------------------------------------------------

// The child's stack, one for all as only one child at a time is between clone and exec. Kept, and
// as it is never unmapped, no static destructor has to come after the last spawn.
void* child_stack() {
  constexpr std::size_t kGuard = std::size_t{64} << 10U;  // a page, however large they are
  constexpr std::size_t kSize = std::size_t{64} << 10U;
  static void* top = nullptr;
  if (top != nullptr) return top;
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK;
  void* const memory = mmap(nullptr, kGuard + kSize, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  if (mprotect(memory, kGuard, PROT_NONE) != 0) {
    const int error = errno;
    munmap(memory, kGuard + kSize);
    errno = error;
    return nullptr;
  }
  return top = static_cast<std::byte*>(memory) + kGuard + kSize;
}

// All 64: glibc would leave out those that it uses itself.
class SignalsBlocked {
 public:
  SignalsBlocked() {
    const std::uint64_t all = ~std::uint64_t{0};
    syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &before_, sizeof all);
  }
  ~SignalsBlocked() { syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before_, nullptr, sizeof before_); }
  SignalsBlocked(const SignalsBlocked&) = delete;
  SignalsBlocked& operator=(const SignalsBlocked&) = delete;

 private:
  std::uint64_t before_ = 0;
};

std::vector<char*> pointers(std::vector<std::string>& strings) {
  std::vector<char*> result;
  result.reserve(strings.size() + 1);
  for (std::string& string : strings) result.push_back(string.data());
  result.push_back(nullptr);
  return result;
}

// Room for the digits behind the variables that need them; where they begin is told to the child.
void reserve_pids(std::vector<std::string>& env, Child& child) {
  for (std::string& variable : env) {
    const auto* const found = std::find(kPidVariables.begin(), kPidVariables.end(), variable);
    if (found == kPidVariables.end()) continue;
    variable.append(kPidDigits, '\0');
    child.pid_digits[static_cast<std::size_t>(found - kPidVariables.begin())] =
        variable.data() + found->size();
  }
}

SpawnResult failure(Stage stage, int error) {
  SpawnResult result;
  result.stage = kStageNames[static_cast<std::size_t>(stage)];
  result.error = error;
  return result;
}

// It is about to end, if it has not: this waits for microseconds.
void reap(int pidfd) {
  siginfo_t info{};
  while (waitid(P_PIDFD, static_cast<id_t>(pidfd), &info, WEXITED) != 0 && errno == EINTR) {
  }
}

SpawnResult run(Child& child) {
  void* const stack = child_stack();
  if (stack == nullptr) return failure(Stage::kClone, errno);
  const SignalsBlocked blocked;
  int pidfd = -1;
  const int flags = CLONE_VM | CLONE_VFORK | CLONE_PIDFD | SIGCHLD;
  const pid_t pid = __clone(child_main, stack, flags, &child, &pidfd);
  if (pid < 0) return failure(Stage::kClone, errno);
  SpawnResult result;
  result.pidfd = UniqueFd(pidfd);
  if (child.failed == Stage::kNone) {
    result.pid = pid;
    return result;
  }
  reap(pidfd);
  return failure(child.failed, child.error);
}

// --- Identities ----------------------------------------------------------------------------------

constexpr std::size_t kMaxGroups = 65536;  // as the kernel has it

// Its name is empty if the user database has no entry.
config::UserEntry find(const std::string& user) {
  const auto id = config::find_user(user);
  if (!id) throw std::runtime_error("there is no user " + config::quote(user));
  return config::find_user_entry(user).value_or(config::UserEntry{id->uid, 0, {}, {}, {}});
}

std::vector<gid_t> groups_of(const config::UserEntry& user, gid_t gid) {
  if (user.name.empty()) return {gid};
  std::vector<gid_t> groups(64);
  while (groups.size() <= kMaxGroups) {
    int count = static_cast<int>(groups.size());
    const int found = getgrouplist(user.name.c_str(), gid, groups.data(), &count);
    groups.resize(found < 0 ? groups.size() * 4 : static_cast<std::size_t>(count));
    if (found >= 0) return groups;
  }
  throw std::runtime_error("user " + config::quote(user.name) + " is in too many groups");
}

}  // namespace

std::optional<Identity> resolve_identity(const std::optional<std::string>& user,
                                         const std::optional<std::string>& group) {
  if (!user && !group) return std::nullopt;
  const config::Host host = config::Host::current();
  Identity identity{host.uid, host.gid, {}};
  config::UserEntry entry;
  if (user) {
    entry = find(*user);
    if (entry.name.empty() && !group) {
      throw std::runtime_error("user " + config::quote(*user) +
                               " is not in the user database, so its group must be given");
    }
    identity.uid = entry.uid;
    identity.gid = entry.gid;
  }
  if (group) {
    const auto gid = config::find_group(*group);
    if (!gid) throw std::runtime_error("there is no group " + config::quote(*group));
    identity.gid = *gid;
  }
  if (identity.uid != host.uid && !(host.may_set_user() && host.may_set_group())) {
    throw std::runtime_error("to switch to user " + config::quote(*user) +
                             " the manager must be root");
  }
  if (group && identity.gid != host.gid && !host.may_set_group()) {
    throw std::runtime_error("to switch to group " + config::quote(*group) +
                             " the manager must be root");
  }
  if (!host.may_set_group()) return std::nullopt;  // it is that user and that group already
  identity.groups = user ? groups_of(entry, identity.gid) : std::vector<gid_t>{identity.gid};
  return identity;
}

namespace {

bool is_folder(const std::string& path) {
  struct stat status {};
  return stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

// What to do where a path is not there any more: a generation goes on with what it was made of.
std::string remedy(const std::string& folder, int error) {
  if ((error != ENOENT && error != ENOTDIR) || is_folder(folder)) return {};
  return "; the folder that this generation was made of is gone: put it back, or reload";
}

// The kernel says of a script whose interpreter is not there that the script is not.
std::string cause(const std::string& executable, int error) {
  if (error != ENOENT && error != ENOEXEC && error != EACCES) return {};
  const config::ProgramFault fault = config::program_fault(executable, config::Who::manager());
  const bool telling = !fault.problem.empty() && (fault.certain || error == ENOEXEC);
  return telling ? ": it " + fault.problem : "";
}

}  // namespace

std::string failure_text(const SpawnRequest& request, const SpawnResult& failed) {
  const bool entering = failed.stage == kStageNames[static_cast<std::size_t>(Stage::kChdir)];
  const bool executing = failed.stage == kStageNames[static_cast<std::size_t>(Stage::kExec)];
  std::string text = failed.stage;
  std::string folder;
  if (entering) folder = request.directory.value_or("");
  if (executing) folder = request.executable.substr(0, request.executable.rfind('/'));
  if (entering) text += " " + folder;
  if (executing) text += " " + request.executable;
  const bool forbidden = failed.error == EACCES || failed.error == EPERM;
  if (forbidden && !request.user.empty()) text += " as " + request.user;
  text += ": " + std::generic_category().message(failed.error);
  if (executing) text += cause(request.executable, failed.error);
  return entering || executing ? text + remedy(folder, failed.error) : text;
}

SpawnResult spawn(const SpawnRequest& request) {
  static UniqueFd null;  // opened once
  if (!null) null = UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return failure(Stage::kStdin, errno);

  std::vector<std::string> argv = request.argv;
  std::vector<std::string> env = request.env;
  std::vector<int> sources = {request.stdin_fd < 0 ? null.get() : request.stdin_fd,
                              request.stdout_fd < 0 ? STDOUT_FILENO : request.stdout_fd,
                              request.stderr_fd < 0 ? STDERR_FILENO : request.stderr_fd};
  sources.insert(sources.end(), request.fds.begin(), request.fds.end());

  Child child;
  reserve_pids(env, child);
  const std::vector<char*> argv_pointers = pointers(argv);
  const std::vector<char*> env_pointers = pointers(env);
  child.executable = request.executable.c_str();
  child.argv = argv_pointers.data();
  child.env = env_pointers.data();
  if (request.directory) child.directory = request.directory->c_str();
  child.directory_is_own = request.directory_is_own;
  if (request.umask) child.umask = &*request.umask;
  if (request.open_files) child.open_files = &*request.open_files;
  rlimit tag{};
  if (request.tag >> 32U != 0 && getrlimit(RLIMIT_RTTIME, &tag) == 0) {
    tag.rlim_max = request.tag;
    tag.rlim_cur = std::min(tag.rlim_cur, tag.rlim_max);
    child.tag = &tag;
  }
  if (request.identity) {
    child.identity = &*request.identity;
    child.groups = request.identity->groups.data();
    child.group_count = request.identity->groups.size();
  }
  child.no_new_privileges = request.no_new_privileges;
  child.sources = sources.data();
  child.source_count = static_cast<int>(sources.size());
  child.death_signal = request.death_signal;
  child.parent = getpid();
  return run(child);
}

int fork_aside(const std::function<void()>& run) {
  const pid_t child = fork();
  if (child < 0) return errno;
  if (child == 0) {
    // The one between goes, and with it the parent.
    if (setsid() >= 0 && fork() == 0) run();
    _exit(0);
  }
  while (waitpid(child, nullptr, 0) < 0 && errno == EINTR) {
  }
  return 0;
}

}  // namespace ostler::runtime
