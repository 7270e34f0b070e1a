// The least a process manager can do, to measure ostlerd against: open a socket, start N workers
// with vfork and exec, wait, start the one that died again. No supervision, no checks, no log.
//
//   bench-bare-loop N COMMAND [ARG]...    prints the port, then a line for each pid it starts
#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

namespace {

struct Listener {
  int fd = -1;
  int port = 0;
};

Listener open_listener() {
  Listener listener;
  listener.fd = ::socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  auto* generic = reinterpret_cast<sockaddr*>(&address);
  if (::bind(listener.fd, generic, size) != 0 || ::listen(listener.fd, 2048) != 0 ||
      ::getsockname(listener.fd, generic, &size) != 0) {
    std::perror("listen");
    std::exit(1);
  }
  listener.port = ntohs(address.sin_port);
  return listener;
}

// LISTEN_PID has to name the child; the buffer is written between vfork and exec.
char listen_pid[32] = "LISTEN_PID=";

void write_pid(pid_t pid) {
  char digits[16];
  std::size_t count = 0;
  for (; pid > 0; pid /= 10) digits[count++] = static_cast<char>('0' + pid % 10);
  char* out = listen_pid + std::strlen("LISTEN_PID=");
  while (count > 0) *out++ = digits[--count];
  *out = '\0';
}

pid_t start(int listener, char** argv, char** env) {
  const pid_t pid = ::vfork();
  if (pid != 0) return pid;
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (listener != 3) ::dup2(listener, 3);
  write_pid(::getpid());
  ::execve(argv[0], argv, env);
  ::_exit(127);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  const int workers = std::atoi(argv[1]);
  const Listener listener = open_listener();
  const char* notify = std::getenv("NOTIFY_SOCKET");
  std::string notify_variable = std::string("NOTIFY_SOCKET=") + (notify ? notify : "");
  char listen_fds[] = "LISTEN_FDS=1";
  std::vector<char*> env{listen_fds, listen_pid};
  if (notify != nullptr) env.push_back(notify_variable.data());
  env.push_back(nullptr);
  std::printf("%d\n", listener.port);
  for (int i = 0; i < workers; ++i) std::printf("%d\n", start(listener.fd, argv + 2, env.data()));
  std::fflush(stdout);
  while (::waitpid(-1, nullptr, 0) > 0) {
    const pid_t pid = start(listener.fd, argv + 2, env.data());
    std::printf("%d\n", pid);
    std::fflush(stdout);
  }
}
