// The example that keeps notes in SQLite, in the classes that its handler can run in.
#include <doctest/doctest.h>

#include <unistd.h>

#include <filesystem>
#include <future>
#include <string>
#include <vector>

#include "example.hpp"

namespace ostler::test {
namespace {

constexpr auto kClasses = {"class=sync", "class=threads threads=4"};

Example notes(const Listener& listener, const std::string& file, const std::string& settings) {
  return Example(listener, {file}, settings, OSTLER_EXAMPLE_NOTES);
}

std::string without_body(const std::string& method, const std::string& path) {
  return method + " " + path + " HTTP/1.1\r\nHost: test\r\n\r\n";
}

std::string put(const std::string& path, const std::string& body) {
  const std::string request = post(path, body);
  return "PUT" + request.substr(request.find(' '));
}

// On a connection of its own: class sync closes each after one answer.
Reply ask(const Listener& listener, const std::string& text) {
  return Client(listener).ask(text);
}

}  // namespace

TEST_CASE("notes are added, read, listed, changed and removed") {
  for (const std::string settings : kClasses) {
    CAPTURE(settings);
    const ScratchDirectory scratch;
    const Listener listener;
    Example example = notes(listener, scratch.file("notes.db"), settings);

    const Reply added = ask(listener, post("/notes", R"({"text": "buy 'hay'; DROP TABLE notes"})"));
    CHECK(added.status == 201);
    CHECK(added.fields.at("location") == "/notes/1");
    CHECK(added.fields.at("content-type") == "application/json");
    CHECK(added.body == "{\"id\":1,\"text\":\"buy 'hay'; DROP TABLE notes\"}\n");
    CHECK(ask(listener, get("/notes/1")).body == added.body);

    CHECK(ask(listener, put("/notes/1", R"({"text": "a\u0000b ä"})")).status == 200);
    CHECK(ask(listener, get("/notes/1")).body == "{\"id\":1,\"text\":\"a\\u0000b ä\"}\n");
    CHECK(ask(listener, post("/notes", R"({"text": ""})")).status == 201);
    CHECK(ask(listener, get("/notes?after=1")).body == "{\"notes\":[{\"id\":2,\"text\":\"\"}]}\n");

    CHECK(ask(listener, without_body("DELETE", "/notes/2")).status == 204);
    CHECK(ask(listener, without_body("DELETE", "/notes/2")).status == 404);
    CHECK(ask(listener, get("/notes")).body ==
          "{\"notes\":[{\"id\":1,\"text\":\"a\\u0000b ä\"}]}\n");
    // A number is never given again.
    CHECK(ask(listener, post("/notes", R"({"text": "c"})")).fields.at("location") == "/notes/3");

    example.stop();
    CHECK(example.wait() == 0);
  }
}

TEST_CASE("what a client of the notes does wrong is told to it") {
  const ScratchDirectory scratch;
  const Listener listener;
  Example example = notes(listener, scratch.file("notes.db"), "class=sync");

  for (const char* body : {"", "{", "[]", "{}", R"({"text": 1})", "{\"text\": \"\xff\"}"}) {
    CAPTURE(body);
    const Reply refused = ask(listener, post("/notes", body));
    CHECK(refused.status == 400);
    CHECK(refused.body.starts_with("{\"error\":\"want {\\\"text\\\": \\\"...\\\"}: "));
  }
  CHECK(ask(listener, get("/notes?after=x")).status == 400);
  CHECK(ask(listener, get("/notes?before=1")).status == 400);
  for (const char* path : {"/", "/notes/1", "/notes/", "/notes/x", "/notes/-1", "/notes/1/2",
                           "/notes/99999999999999999999"}) {
    CAPTURE(path);
    CHECK(ask(listener, get(path)).status == 404);
  }
  CHECK(ask(listener, put("/notes/1", R"({"text": "a"})")).status == 404);
  const Reply not_allowed = ask(listener, without_body("DELETE", "/notes"));
  CHECK(not_allowed.status == 405);
  CHECK(not_allowed.fields.at("allow") == "GET, HEAD, POST");
  CHECK(ask(listener, post("/notes/1", "")).fields.at("allow") == "DELETE, GET, HEAD, PUT");
  CHECK(ask(listener, get("/notes")).body == "{\"notes\":[]}\n");
}

TEST_CASE("workers share the notes, none is lost, and the last one out leaves only the file") {
  constexpr int kClients = 8;
  constexpr int kEach = 10;
  const ScratchDirectory scratch;
  const std::string file = scratch.file("notes.db");
  const Listener listener;
  Example first = notes(listener, file, "class=threads threads=4");
  Example second = notes(listener, file, "class=sync");

  std::vector<std::future<int>> clients;
  for (int i = 0; i < kClients; ++i) {
    clients.push_back(std::async(std::launch::async, [&] {
      int added = 0;
      for (int j = 0; j < kEach; ++j) {
        added += ask(listener, post("/notes", R"({"text": "x"})")).status == 201 ? 1 : 0;
      }
      return added;
    }));
  }
  int added = 0;
  for (auto& client : clients) added += client.get();
  CHECK(added == kClients * kEach);
  CHECK(ask(listener, get("/notes?after=79")).body == "{\"notes\":[{\"id\":80,\"text\":\"x\"}]}\n");

  for (Example* example : {&first, &second}) {
    example->stop();
    CHECK(example->wait() == 0);
  }
  // Connections that were closed have put their log into the file.
  CHECK(std::filesystem::exists(file));
  CHECK_FALSE(std::filesystem::exists(file + "-wal"));
}

TEST_CASE("a worker that cannot open its database fails before it serves; one without is misused") {
  const auto exit_code = [](const char* file) {
    Process process({}, [&] {
      set_environment({});
      return checked(::execl(OSTLER_EXAMPLE_NOTES, "ostler-example-notes", file, "--listen",
                             "tcp://127.0.0.1:0", nullptr),
                     "execute");
    });
    return process.wait();
  };
  CHECK(exit_code("/dev/null/notes.db") == 1);
  CHECK(exit_code("--listen") == 2);
}

}  // namespace ostler::test
