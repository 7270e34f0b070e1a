// Notes in an SQLite database, which all workers and their threads share through its file. What
// fails throws std::runtime_error, with what was being done and SQLite's reason.
#pragma once

#include <cstdint>

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

struct sqlite3;

namespace notes {

struct Note {
  std::int64_t id = 0;
  std::string text;
};

// One connection to the database; for one thread at a time.
class Store {
 public:
  // Opens the database, and makes it if it is not there.
  explicit Store(const std::string& path);

  Note add(const std::string& text);
  std::optional<Note> find(std::int64_t id);
  // Of those with a higher number than `after`, the first ones.
  std::vector<Note> list(std::int64_t after, int most);
  // False: there is no such note.
  bool change(const Note& note);
  bool remove(std::int64_t id);

 private:
  struct Close {
    void operator()(sqlite3* database) const noexcept;
  };
  std::unique_ptr<sqlite3, Close> database_;
};

// A connection for each thread that asks for one.
class Stores {
 public:
  explicit Stores(std::string path) : path_(std::move(path)) {}

  // The calling thread's, opened at its first call. In any thread.
  Store& mine();
  // Closes all of them; nobody may be using one.
  void close();

 private:
  const std::string path_;
  std::mutex mutex_;
  std::map<std::thread::id, Store> stores_;
};

}  // namespace notes
