// What it costs a worker to be watched: one request marked, counted and unmarked, in nanoseconds.
#include <chrono>
#include <cstdio>

#include "ostler/worker.hpp"

int main() {
  constexpr int kRequests = 5'000'000;
  const ostler::worker worker;
  const auto begin = std::chrono::steady_clock::now();
  for (int i = 0; i < kRequests; ++i) {
    const ostler::in_flight request(worker, "GET", "/index.html", false);
  }
  const std::chrono::duration<double, std::nano> took = std::chrono::steady_clock::now() - begin;
  std::printf("marking and counting a request: %.0f ns\n", took.count() / kRequests);
}
