// How long the loop is busy at a stretch: from the end of one wait for events to the begin of the
// next, whatever it does meanwhile. An event that comes then waits for so long.
//
// Asio's loop shows neither where it waits nor what it calls. It waits in epoll_wait(2) alone, and
// that call is wrapped when a program is linked (CMakeLists.txt).
#pragma once

#include "core/ids.hpp"

namespace ostler::runtime {

// Of the calling thread, its last wait counting as the begin.
core::Duration longest_stretch();

}  // namespace ostler::runtime
