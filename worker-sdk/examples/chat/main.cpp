// ostler-example-chat: a chat over WebSocket, beside a page to take part with. Each worker has a
// room of its own: who wants one for all puts a broker behind them.
#include <algorithm>
#include <string>
#include <string_view>

#include <boost/beast/websocket/rfc6455.hpp>

#include "ostler/http.hpp"
#include "room.hpp"

namespace chat {
namespace {

namespace asio = boost::asio;
namespace http = ostler::http;

constexpr std::string_view kChat = "/chat?name=";
constexpr std::size_t kLongestName = 32;
constexpr char kPage[] = R"(<!doctype html>
<meta charset="utf-8">
<title>chat</title>
<form><input autofocus autocomplete="off"></form>
<pre></pre>
<script>
  const name = prompt('Your name, in letters and digits');
  const input = document.querySelector('input');
  const lines = document.querySelector('pre');
  const say = line => lines.append(line + '\n');
  let socket;
  function enter() {
    socket = new WebSocket(location.href.replace('http', 'ws') + 'chat?name=' + name);
    socket.onmessage = event => say(event.data);
    // 1001: this worker goes, another one is there.
    socket.onclose = event => event.code === 1001 ? enter() : say('* closed: ' + event.code);
  }
  document.forms[0].onsubmit = () => { socket.send(input.value); input.value = ''; return false; };
  enter();
</script>
)";

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= kLongestName &&
         text.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") ==
             std::string_view::npos;
}

http::response refuse(http::status status, const char* why) {
  return {.status = status, .body = std::string(why) + "\n"};
}

http::response answer(const http::request& request, Room& room) {
  const std::string_view target(request.target().data(), request.target().size());
  if (target == "/") {
    return {.body = kPage, .content_type = "text/html; charset=utf-8"};
  }
  if (!target.starts_with(kChat))
    return refuse(http::status::not_found, "the chat is at /chat?name=NAME");
  const std::string_view name = target.substr(kChat.size());
  if (!is_name(name)) return refuse(http::status::bad_request, "a name has letters and digits");
  if (!boost::beast::websocket::is_upgrade(request)) {
    return refuse(http::status::bad_request, "this is for WebSocket");
  }
  http::response response;
  response.upgrade = [&room, &request,
                      name = std::string(name)](ostler::connection& peer) -> asio::awaitable<void> {
    Member member(room, peer, name);
    co_await member.stay(request);
  };
  return response;
}

}  // namespace
}  // namespace chat

int main(int argc, char** argv) {
  chat::Room room;
  // A coroutine, though it waits for nothing: so that it is served in class async and no other.
  return ostler::http::serve(
      argc, argv,
      [&](const ostler::http::request& request) -> boost::asio::awaitable<ostler::http::response> {
        co_return chat::answer(request, room);
      });
}
