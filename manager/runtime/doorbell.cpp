#include "runtime/doorbell.hpp"

#include <spdlog/spdlog.h>
#include <sys/epoll.h>

#include <array>
#include <cerrno>
#include <set>
#include <system_error>
#include <utility>

namespace ostler::runtime {
namespace {

int make_set() {
  const int fd = ::epoll_create1(EPOLL_CLOEXEC);
  if (fd < 0) throw std::system_error(errno, std::generic_category(), "epoll_create1");
  return fd;
}

}  // namespace

Doorbell::Doorbell(boost::asio::io_context& context, Rung rung)
    : set_(context, make_set()), rung_(std::move(rung)) {}

void Doorbell::arm(int fd, const std::string& key) {
  epoll_event event{};
  event.events = EPOLLIN | EPOLLONESHOT;
  event.data.fd = fd;
  const bool known = keys_.contains(fd);
  if (::epoll_ctl(set_.native_handle(), known ? EPOLL_CTL_MOD : EPOLL_CTL_ADD, fd, &event) != 0) {
    return spdlog::error("watch the listener {}: {}", key, std::generic_category().message(errno));
  }
  keys_[fd] = key;
  wait();
}

void Doorbell::forget(int fd) {
  if (keys_.erase(fd) == 0) return;
  ::epoll_ctl(set_.native_handle(), EPOLL_CTL_DEL, fd, nullptr);
}

void Doorbell::wait() {
  if (std::exchange(waiting_, true)) return;
  set_.async_wait(boost::asio::posix::descriptor_base::wait_read,
                  [this](const boost::system::error_code& error) {
                    waiting_ = false;
                    if (error) return;
                    hear();
                    if (!keys_.empty()) wait();
                  });
}

// Until nothing is left: the set itself is watched for changes alone.
void Doorbell::hear() {
  std::array<epoll_event, 64> events{};
  std::set<std::string> keys;
  for (int count = 64; count == 64;) {
    count = ::epoll_wait(set_.native_handle(), events.data(), events.size(), 0);
    for (int i = 0; i < count; ++i) {
      const auto found = keys_.find(events.at(static_cast<std::size_t>(i)).data.fd);
      if (found != keys_.end()) keys.insert(found->second);
    }
  }
  for (const std::string& key : keys) rung_(key);
}

}  // namespace ostler::runtime
