// A health check that is a program: `health: {exec}`.
//
// It runs as the pool's workers do (user, directory, environment) with OSTLER_WORKER_PID set, in a
// session of its own, and passes if it exits 0 in time. What it wrote last says why not. With it
// end its children, wherever they are.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <string>

#include "runtime/child_watch.hpp"
#include "runtime/output.hpp"
#include "runtime/spawner.hpp"

namespace ostler::runtime {

// Starts `request`, whose output this function sets. `done` is called once, from the loop, with
// what went wrong; "" if the check passed.
void run_check(boost::asio::io_context& context, OutputTurns& outputs, ChildWatch& children,
               SpawnRequest request, const std::string& name, std::chrono::nanoseconds limit,
               std::function<void(const std::string& fault)> done);

}  // namespace ostler::runtime
