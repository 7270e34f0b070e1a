// The socket types of the engine: one for tcp and unix alike, on the executor of one io_context.
#pragma once

#include <chrono>

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>

namespace ostler::serving {

namespace asio = boost::asio;
using Clock = std::chrono::steady_clock;
using Executor = asio::io_context::executor_type;
using Protocol = asio::generic::stream_protocol;
using Endpoint = Protocol::endpoint;
using Socket = asio::basic_stream_socket<Protocol, Executor>;
using Timer = asio::basic_waitable_timer<Clock, asio::wait_traits<Clock>, Executor>;
using Error = boost::system::error_code;

}  // namespace ostler::serving
