// ostler::serve: connections of any protocol.
#include <cstdio>
#include <memory>
#include <string>
#include <utility>

#include <boost/asio/co_spawn.hpp>

#include "ostler/serve.hpp"
#include "serving/engine.hpp"
#include "serving/pool_options.hpp"
#include "serving/program.hpp"

namespace ostler {
namespace {

using serving::Engine;
using serving::Origin;
using serving::Socket;

// One connection and its handler; owned by whoever has it in hand.
class RawSession : public std::enable_shared_from_this<RawSession> {
 public:
  RawSession(Engine& engine, const connection_handler& handler, Socket socket, Origin origin)
      : engine_(engine),
        handler_(handler),
        origin_(std::move(origin)),
        connection_(engine.worker(), std::move(socket), serving::text_of(origin_.peer),
                    engine.stop_token(), origin_.is_private) {}

  void start() {
    if (handler_.async()) return start_coroutine();
    engine_.call([self = shared_from_this()] { self->block(); },
                 [self = shared_from_this()] { self->end(); });
  }

 private:
  void start_coroutine() {
    try {
      boost::asio::co_spawn(engine_.executor(), handler_.async()(connection_),
                            [self = shared_from_this()](const std::exception_ptr& error) {
                              if (error) self->complain(error);
                              self->end();
                            });
    } catch (...) {  // it is no coroutine, but returns one
      complain(std::current_exception());
      end();
    }
  }

  void block() noexcept {
    try {
      handler_.blocking()(connection_);
    } catch (...) {
      complain(std::current_exception());
    }
  }

  void complain(const std::exception_ptr& error) const {
    std::fprintf(stderr, "connection from %s: %s\n", connection_.peer().c_str(),
                 serving::reason_of(error).c_str());
  }

  void end() {
    Engine::close(connection_.socket(), origin_);
    engine_.ended(origin_);
  }

  Engine& engine_;
  const connection_handler& handler_;
  Origin origin_;
  connection connection_;
};

void run(worker& worker, const connection_handler& handler, serve_options options) {
  if (!handler.async() && !handler.blocking()) throw std::invalid_argument("the handler is empty");
  serving::PoolOptions(worker_internals::of(worker).options).apply_to(options);
  const std::initializer_list<worker_class> blocking{worker_class::sync, worker_class::threads};
  const std::initializer_list<worker_class> coroutine{worker_class::async};
  const auto& able = handler.async() ? coroutine : blocking;
  // One that waits for a thread is better taken by another worker.
  if (serving::choose_class(options, able) == worker_class::threads) {
    options.connections =
        std::min(options.connections, static_cast<std::size_t>(std::max(options.threads, 1)));
  }
  Engine engine(worker, std::move(options), able);
  engine.run([&](Socket socket, Origin origin) {
    std::make_shared<RawSession>(engine, handler, std::move(socket), std::move(origin))->start();
  });
}

}  // namespace

int serve(worker& worker, connection_handler handler, const serve_options& options) noexcept {
  return serving::exit_code_of([&] {
    run(worker, handler, options);
    return kDrained;
  });
}

int serve(connection_handler handler, const serve_options& options) noexcept {
  return serving::exit_code_of([&] {
    worker worker;
    return serve(worker, std::move(handler), options);
  });
}

int serve(int argc, char** argv, connection_handler handler, serve_options options) noexcept {
  return serving::exit_code_of([&]() -> int {
    if (const auto code = serving::parse_flags(argc, argv, "connections", options.listen)) {
      return *code;
    }
    return serve(std::move(handler), options);
  });
}

}  // namespace ostler
