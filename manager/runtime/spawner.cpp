#include "runtime/spawner.hpp"

#include <fcntl.h>
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
#include <string_view>
#include <system_error>
#include <tuple>
#include <type_traits>
#include <utility>

#include "config/src/program.hpp"
#include "runtime/raw_syscall.hpp"

// glibc's clone(2) under the name that sanitizers do not intercept: theirs takes it for a fork.
// NOLINTNEXTLINE(bugprone-reserved-identifier,readability-identifier-naming): it is not ours
extern "C" int __clone(int (*function)(void*), void* stack, int flags, void* argument, ...);

namespace ostler::runtime {
namespace {

static_assert(sizeof(long) == 8, "the raw system calls below are those of 64-bit Linux");

// --- In the child --------------------------------------------------------------------------------
//
// Memory is the manager's own, and so is errno, while the manager goes on: no allocation, no locks,
// no libc. (glibc's setresuid and its like would signal every thread of the process, which here are
// the manager's.)

template <class Value>
OSTLER_IN_CHILD __attribute__((always_inline)) inline long word(Value value) {
  if constexpr (std::is_pointer_v<Value>) {
    return reinterpret_cast<long>(value);
  } else if constexpr (std::is_null_pointer_v<Value>) {
    return 0;
  } else {
    return static_cast<long>(value);
  }
}

// The result, or the negative errno.
template <class A = long, class B = long, class C = long, class D = long, class E = long>
OSTLER_IN_CHILD __attribute__((always_inline)) inline long call(long number, A a = {}, B b = {},
                                                                C c = {}, D d = {}, E e = {}) {
  return raw_syscall(number, word(a), word(b), word(c), word(d), word(e));
}

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
  int over = -1;  // closed by exec, and by the child's end; moved behind its other descriptors
  pid_t parent = 0;
  // Written while the parent may read; not of std::atomic, whose functions would be instrumented.
  int at = 0;  // the last Stage that it passed; kExec: it is about to execute its program
  int failed = 0;
  int error = 0;
};

int read(const int& written_by_child) {
  return __atomic_load_n(&written_by_child, __ATOMIC_ACQUIRE);
}

Stage read_stage(const int& written_by_child) {
  return static_cast<Stage>(read(written_by_child));
}

OSTLER_IN_CHILD bool refuse(Child& child, Stage stage, int error) {
  __atomic_store_n(&child.error, error, __ATOMIC_RELAXED);
  __atomic_store_n(&child.failed, static_cast<int>(stage), __ATOMIC_RELEASE);
  return false;
}

OSTLER_IN_CHILD bool passed(Child& child, Stage stage, long result) {
  if (result < 0) return refuse(child, stage, static_cast<int>(-result));
  __atomic_store_n(&child.at, static_cast<int>(stage), __ATOMIC_RELAXED);
  return true;
}

// Every source is first brought out of the range that is written to, so that no order of numbers
// can overwrite one that is still needed. This comes before the limit of open files, which may be
// lower than what the manager holds and would leave no number to duplicate to.
OSTLER_IN_CHILD bool place_descriptors(Child& child) {
  const int count = child.source_count;
  for (int i = 0; i < count; ++i) {
    if (child.sources[i] > count) continue;
    const long moved = call(SYS_fcntl, child.sources[i], F_DUPFD_CLOEXEC, count + 1);
    if (!passed(child, Stage::kDup, moved)) return false;
    child.sources[i] = static_cast<int>(moved);
  }
  if (child.over != count) {
    if (!passed(child, Stage::kDup, call(SYS_dup3, child.over, count, O_CLOEXEC))) return false;
  }
  for (int i = 0; i < count; ++i) {
    if (!passed(child, Stage::kDup, call(SYS_dup3, child.sources[i], i, 0))) return false;
  }
  const long closed = call(SYS_close_range, count + 1, ~0U, 0);
  // A kernel before 5.9, or a container's filter that knows no call newer than itself. All that
  // the manager opens is close-on-exec: nothing is inherited but what it was itself given.
  return closed == -ENOSYS || closed == -EPERM || passed(child, Stage::kCloseRange, closed);
}

OSTLER_IN_CHILD bool apply_limits(Child& child) {
  // Where a sandbox refuses it, descendants are known by their session alone.
  if (child.tag != nullptr) call(SYS_prlimit64, 0, RLIMIT_RTTIME, child.tag, nullptr);
  if (child.open_files != nullptr) {
    const long result = call(SYS_prlimit64, 0, RLIMIT_NOFILE, child.open_files, nullptr);
    if (!passed(child, Stage::kSetrlimit, result)) return false;
  }
  return child.umask == nullptr || passed(child, Stage::kUmask, call(SYS_umask, *child.umask));
}

// Back from what was switched to there must be no way, so capabilities go as well. The kernel takes
// them only from a root that becomes another user, not from a manager that has but CAP_SETUID.
OSTLER_IN_CHILD bool drop_capabilities(Child& child) {
  __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  const __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {};
  return passed(child, Stage::kCapset, call(SYS_capset, &header, none));
}

// Believed only when seen.
OSTLER_IN_CHILD bool verify_identity(Child& child, uid_t uid, gid_t gid) {
  uid_t uids[3] = {};
  gid_t gids[3] = {};
  if (!passed(child, Stage::kVerify, call(SYS_getresuid, &uids[0], &uids[1], &uids[2])) ||
      !passed(child, Stage::kVerify, call(SYS_getresgid, &gids[0], &gids[1], &gids[2]))) {
    return false;
  }
  bool same = true;
  for (const uid_t found : uids) same = same && found == uid;
  for (const gid_t found : gids) same = same && found == gid;
  if (!same || (uid != 0 && call(SYS_setuid, 0) == 0)) {
    return refuse(child, Stage::kVerify, EPERM);
  }
  return true;
}

// No exec gives a capability that is not in the bounding set. Without CAP_SETPCAP the set stays as
// it is, and no_new_privs has to suffice.
OSTLER_IN_CHILD bool empty_bounding_set(Child& child) {
  for (int capability = 0; capability < 64; ++capability) {
    const long dropped = call(SYS_prctl, PR_CAPBSET_DROP, capability, 0, 0, 0);
    if (dropped == -EINVAL || dropped == -EPERM) return true;  // beyond the last, or not allowed
    if (!passed(child, Stage::kBounding, dropped)) return false;
  }
  return true;
}

OSTLER_IN_CHILD bool switch_identity(Child& child) {
  if (child.identity == nullptr) return true;
  const uid_t uid = child.identity->uid;
  const gid_t gid = child.identity->gid;
  if (child.no_new_privileges && uid != 0 && !empty_bounding_set(child)) return false;
  const long grouped = call(SYS_setgroups, child.group_count, child.groups);
  return passed(child, Stage::kSetgroups, grouped) &&
         passed(child, Stage::kSetresgid, call(SYS_setresgid, gid, gid, gid)) &&
         passed(child, Stage::kSetresuid, call(SYS_setresuid, uid, uid, uid)) &&
         (uid == 0 || drop_capabilities(child)) && verify_identity(child, uid, gid);
}

// As the worker's user, whose permissions are those that count: a directory that it cannot enter
// is refused here and not by a puzzled worker. Where the manager is itself, its children may be.
OSTLER_IN_CHILD bool enter_directory(Child& child, bool own) {
  return child.directory == nullptr || child.directory_is_own != own ||
         passed(child, Stage::kChdir, call(SYS_chdir, child.directory));
}

OSTLER_IN_CHILD bool renounce_privileges(Child& child) {
  return !child.no_new_privileges ||
         passed(child, Stage::kNoNewPrivs, call(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
}

// After the ids, whose change clears the death signal. A manager that died before this call sends
// nothing any more: then the parent is another process by now.
OSTLER_IN_CHILD bool follow_parent(Child& child) {
  const long asked = call(SYS_prctl, PR_SET_PDEATHSIG, child.death_signal, 0, 0, 0);
  if (!passed(child, Stage::kPrctl, asked)) return false;
  return call(SYS_getppid) == child.parent || refuse(child, Stage::kParent, ESRCH);
}

// getpid() of libc would do as well today; it cached the parent's once.
OSTLER_IN_CHILD void write_pid(Child& child) {
  for (char* place : child.pid_digits) {
    if (place == nullptr) continue;
    char digits[kPidDigits] = {};
    std::size_t count = 0;
    for (long pid = call(SYS_getpid); pid > 0; pid /= 10) {
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
    const long result = call(SYS_rt_sigaction, signal, kDefaultAction, nullptr, kMaskBytes);
    if (result < 0 && result != -EINVAL) return passed(child, Stage::kSignals, result);
  }
  const long result = call(SYS_rt_sigprocmask, SIG_SETMASK, &kNoSignals, nullptr, kMaskBytes);
  return passed(child, Stage::kSignals, result);
}

OSTLER_IN_CHILD int child_main(void* argument) {
  Child& child = *static_cast<Child*>(argument);
  if (passed(child, Stage::kSetsid, call(SYS_setsid)) && place_descriptors(child) &&
      apply_limits(child) && enter_directory(child, true) && switch_identity(child) &&
      enter_directory(child, false) && renounce_privileges(child) && follow_parent(child)) {
    write_pid(child);
    if (reset_signals(child) && passed(child, Stage::kExec, 0)) {
      passed(child, Stage::kExec, call(SYS_execve, child.executable, child.argv, child.env));
    }
  }
  call(SYS_exit_group, 127);
  __builtin_unreachable();
}

// --- In the parent -------------------------------------------------------------------------------

constexpr std::size_t kGuardSize = std::size_t{64} << 10U;  // a page, however large they are
constexpr std::size_t kStackSize = std::size_t{64} << 10U;
constexpr std::size_t kStacksKept = 4;

std::vector<std::byte*>& spare_stacks() {
  static std::vector<std::byte*> instance;
  return instance;
}

// Of a child between clone and exec; what it writes past its end is caught. Or nullptr, and errno.
std::byte* get_stack() {
  if (auto& spare = spare_stacks(); !spare.empty()) {
    std::byte* const stack = spare.back();
    spare.pop_back();
    return stack;
  }
  const int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK;
  void* const memory = mmap(nullptr, kGuardSize + kStackSize, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  if (mprotect(memory, kGuardSize, PROT_NONE) != 0) {
    const int error = errno;
    munmap(memory, kGuardSize + kStackSize);
    errno = error;
    return nullptr;
  }
  return static_cast<std::byte*>(memory);
}

void put_back_stack(std::byte* stack) {
  if (stack == nullptr) return;
  if (spare_stacks().size() < kStacksKept) return spare_stacks().push_back(stack);
  munmap(stack, kGuardSize + kStackSize);
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

std::string name_of(Stage stage) {
  return kStageNames[static_cast<std::size_t>(stage)];
}

}  // namespace

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

std::string failure_text(const SpawnRequest& request, const SpawnFailure& failed) {
  const bool entering = failed.stage == name_of(Stage::kChdir);
  const bool executing = failed.stage == name_of(Stage::kExec);
  std::string text = failed.stage;
  if (failed.error == 0) return text;
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

// What the child uses until it executes its program.
struct Newborn::Memory {
  explicit Memory(SpawnRequest asked) : request(std::move(asked)) {}
  ~Memory() { put_back_stack(stack); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;

  void prepare(int null, int over) {
    sources = {request.stdin_fd < 0 ? null : request.stdin_fd,
               request.stdout_fd < 0 ? STDOUT_FILENO : request.stdout_fd,
               request.stderr_fd < 0 ? STDERR_FILENO : request.stderr_fd};
    sources.insert(sources.end(), request.fds.begin(), request.fds.end());
    child.sources = sources.data();
    child.source_count = static_cast<int>(sources.size());
    child.over = over;
    reserve_pids(request.env, child);
    argv = pointers(request.argv);
    env = pointers(request.env);
    child.executable = request.executable.c_str();
    child.argv = argv.data();
    child.env = env.data();
    if (request.directory) child.directory = request.directory->c_str();
    child.directory_is_own = request.directory_is_own;
    if (request.umask) child.umask = &*request.umask;
    if (request.open_files) child.open_files = &*request.open_files;
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
    child.death_signal = request.death_signal;
    child.parent = getpid();
  }

  SpawnRequest request;
  std::vector<char*> argv;
  std::vector<char*> env;
  std::vector<int> sources;
  rlimit tag{};
  Child child;
  std::byte* stack = nullptr;
};

Newborn::Newborn(SpawnRequest request) : memory_(std::make_unique<Memory>(std::move(request))) {
  begin();
}

void Newborn::begin() {
  static UniqueFd null;  // opened once
  if (!null) null = UniqueFd(open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return fail(name_of(Stage::kStdin), errno);
  std::array<int, 2> pipe{};
  if (pipe2(pipe.data(), O_CLOEXEC | O_NONBLOCK) != 0) return fail("pipe", errno);
  over_ = UniqueFd(pipe[0]);
  const UniqueFd writing(pipe[1]);
  memory_->stack = get_stack();
  if (memory_->stack == nullptr) return fail(name_of(Stage::kClone), errno);
  memory_->prepare(null.get(), writing.get());

  const SignalsBlocked blocked;
  int pidfd = -1;
  const int flags = CLONE_VM | CLONE_PIDFD | SIGCHLD;
  void* const top = memory_->stack + kGuardSize + kStackSize;
  const pid_t pid = __clone(child_main, top, flags, &memory_->child, &pidfd);
  if (pid < 0) return fail(name_of(Stage::kClone), errno);
  pid_ = pid;
  pidfd_ = UniqueFd(pidfd);
}

Newborn::~Newborn() {
  // It may be using it still.
  if (state_ == State::kStarting) std::ignore = memory_.release();
}

void Newborn::fail(std::string stage, int error) {
  state_ = State::kFailed;
  failure_ = {std::move(stage), error};
}

std::string Newborn::at() const {
  return name_of(read_stage(memory_->child.at));
}

Newborn::State Newborn::look() {
  char nothing = 0;
  if (state_ != State::kStarting || ::read(over_.get(), &nothing, 1) != 0) return state_;
  const Stage failed = read_stage(memory_->child.failed);
  const Stage at = read_stage(memory_->child.at);
  if (failed != Stage::kNone) {
    fail(name_of(failed), read(memory_->child.error));
  } else if (at != Stage::kExec) {
    fail("it ended before exec; its last step: " + name_of(at), 0);
  } else {
    state_ = State::kExecuted;
  }
  return state_;
}

std::string Newborn::failure_text() const {
  return runtime::failure_text(memory_->request, failure_);
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
