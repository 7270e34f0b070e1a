// ostler-example-notes: a JSON API over SQLite. Its handler blocks, so it is for the classes sync
// (the usual) and threads; each thread has a connection to the database of its own.
#include <algorithm>
#include <charconv>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>

#include <nlohmann/json.hpp>

#include "ostler/http.hpp"
#include "store.hpp"

namespace notes {
namespace {

namespace http = ostler::http;
using nlohmann::json;

constexpr char kUsage[] =
    "usage: ostler-example-notes FILE [--listen ADDRESS]\n"
    "\n"
    "Serves notes, kept in the SQLite database FILE, as JSON: {\"id\": 1, \"text\": \"...\"}\n"
    "\n"
    "  GET    /notes[?after=ID]  the first 100 notes after that one\n"
    "  POST   /notes             a new one: {\"text\": \"...\"}\n"
    "  GET    /notes/ID\n"
    "  PUT    /notes/ID          with another text\n"
    "  DELETE /notes/ID\n"
    "\n"
    "  --listen ADDRESS  open a listener of its own, to run without a manager\n";
constexpr int kPage = 100;
constexpr std::uint64_t kBodyLimit = 64 * 1024;

// What the client did wrong.
class Refusal : public std::runtime_error {
 public:
  Refusal(http::status status, const std::string& why) : std::runtime_error(why), status_(status) {}
  [[nodiscard]] http::status status() const { return status_; }

 private:
  http::status status_;
};

// What is not UTF-8, as in the message about a body that is not, is replaced.
http::response as_json(const json& body, http::status status = http::status::ok) {
  return {.status = status,
          .body = body.dump(-1, ' ', false, json::error_handler_t::replace) + "\n",
          .content_type = "application/json"};
}

json to_json(const Note& note) {
  return {{"id", note.id}, {"text", note.text}};
}

std::string text_of(const http::request& request) {
  try {
    return json::parse(request.body()).at("text").get<std::string>();
  } catch (const json::exception& fault) {
    throw Refusal(http::status::bad_request,
                  std::string(R"(want {"text": "..."}: )") + fault.what());
  }
}

// Nothing but digits; 0 is no note's.
std::optional<std::int64_t> number(std::string_view text) {
  std::int64_t value = 0;
  const auto [rest, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc{} || rest != text.end() || value < 0) return std::nullopt;
  return value;
}

http::response not_allowed(const std::string& methods) {
  http::response response =
      as_json({{"error", "possible here: " + methods}}, http::status::method_not_allowed);
  response.fields.emplace_back("Allow", methods);
  return response;
}

http::response list(std::string_view query, Store& store) {
  constexpr std::string_view kAfter = "after=";
  std::int64_t after = 0;
  if (!query.empty()) {
    const auto given =
        query.starts_with(kAfter) ? number(query.substr(kAfter.size())) : std::nullopt;
    if (!given) throw Refusal(http::status::bad_request, "want after=ID");
    after = *given;
  }
  json notes = json::array();
  for (const Note& note : store.list(after, kPage)) notes.push_back(to_json(note));
  return as_json({{"notes", std::move(notes)}});
}

http::response on_all(const http::request& request, std::string_view query, Store& store) {
  if (request.method() == http::verb::get || request.method() == http::verb::head) {
    return list(query, store);
  }
  if (request.method() != http::verb::post) return not_allowed("GET, HEAD, POST");
  const Note note = store.add(text_of(request));
  http::response response = as_json(to_json(note), http::status::created);
  response.fields.emplace_back("Location", "/notes/" + std::to_string(note.id));
  return response;
}

http::response on_one(const http::request& request, std::int64_t id, Store& store) {
  std::optional<Note> note;
  if (request.method() == http::verb::get || request.method() == http::verb::head) {
    note = store.find(id);
  } else if (request.method() == http::verb::put) {
    note = Note{.id = id, .text = text_of(request)};
    if (!store.change(*note)) note.reset();
  } else if (request.method() == http::verb::delete_) {
    if (store.remove(id)) {
      return {.status = http::status::no_content, .content_type = ""};
    }
  } else {
    return not_allowed("DELETE, GET, HEAD, PUT");
  }
  if (!note) {
    throw Refusal(http::status::not_found, "there is no note " + std::to_string(id));
  }
  return as_json(to_json(*note));
}

http::response route(const http::request& request, Store& store) {
  constexpr std::string_view kAll = "/notes";
  constexpr std::string_view kOne = "/notes/";
  const std::string_view target(request.target().data(), request.target().size());
  const std::string_view path = target.substr(0, target.find('?'));
  if (path == kAll)
    return on_all(request, target.substr(std::min(path.size() + 1, target.size())), store);
  if (path.starts_with(kOne)) {
    if (const auto id = number(path.substr(kOne.size()))) return on_one(request, *id, store);
  }
  throw Refusal(http::status::not_found, "nothing is at " + std::string(path));
}

// What the database refuses is thrown on: a line on stderr, and 500 for the client.
http::response answer(const http::request& request, Stores& stores) {
  try {
    return route(request, stores.mine());
  } catch (const Refusal& refusal) {
    return as_json({{"error", refusal.what()}}, refusal.status());
  }
}

int run(int argc, char** argv, const std::string& path) {
  Stores stores(path);
  http::options options;
  options.body_limit = kBodyLimit;
  // A worker that cannot open the database fails here, before it says that it is ready. Not in
  // on_load: a connection to SQLite must not be carried over a fork.
  options.on_start = [&] { stores.mine(); };
  options.on_stop = [&] { stores.close(); };
  return http::serve(
      argc, argv, [&](const http::request& request) { return answer(request, stores); }, options);
}

}  // namespace
}  // namespace notes

int main(int argc, char** argv) {
  const bool help = argc == 2 && std::strcmp(argv[1], "--help") == 0;
  if (argc < 2 || argv[1][0] == '-') {
    std::fputs(notes::kUsage, help ? stdout : stderr);
    return help ? 0 : ostler::kUsageError;
  }
  const std::string path = argv[1];
  argv[1] = argv[0];
  return notes::run(argc - 1, argv + 1, path);
}
