// A test of such a worker, on the installed fake manager: greeter-test PROGRAM
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <stdexcept>
#include <string>
#include <string_view>

#include <ostler/test/fake_manager.hpp>

int main(int, char** argv) {
  constexpr std::string_view kRequest = "GET /you HTTP/1.0\r\n\r\n";
  ostler::test::fake_manager manager({.command = {argv[1]}});
  manager.wait_ready();
  const int client = manager.connect();
  ::send(client, kRequest.data(), kRequest.size(), MSG_NOSIGNAL);
  std::string answer;
  std::array<char, 512> piece;
  for (ssize_t size = 0; (size = ::recv(client, piece.data(), piece.size(), 0)) > 0;) {
    answer.append(piece.data(), static_cast<std::size_t>(size));
  }
  ::close(client);
  if (!answer.ends_with("good day, /you\n")) throw std::runtime_error("answered: " + answer);
  manager.ask_to_stop();
  return manager.wait();
}
