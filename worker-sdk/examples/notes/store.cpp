#include "store.hpp"

#include <sqlite3.h>

#include <cstddef>
#include <stdexcept>
#include <string_view>
#include <utility>

namespace notes {
namespace {

// How long a statement waits for another worker's to end.
constexpr int kPatienceMs = 5'000;

// AUTOINCREMENT: a number is never given again.
constexpr char kSchema[] =
    "CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT NOT NULL)";

[[noreturn]] void fail(sqlite3* database, std::string_view what) {
  throw std::runtime_error(std::string(what) + ": " + sqlite3_errmsg(database));
}

// A statement and its parameters, which are bound and never part of its text.
class Statement {
 public:
  Statement(sqlite3* database, std::string_view text) : database_(database), text_(text) {
    if (sqlite3_prepare_v2(database, text.data(), static_cast<int>(text.size()), &statement_,
                           nullptr) != SQLITE_OK) {
      fail(database, text_);
    }
  }
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  Statement& bind(std::int64_t value) {
    return checked(sqlite3_bind_int64(statement_, ++bound_, value));
  }
  // `text` must outlive the statement.
  Statement& bind(const std::string& text) {
    return checked(sqlite3_bind_text64(statement_, ++bound_, text.data(), text.size(),
                                       SQLITE_STATIC, SQLITE_UTF8));
  }

  // The next step: true if it gave a row, false at the end.
  bool step() {
    const int result = sqlite3_step(statement_);
    if (result != SQLITE_ROW && result != SQLITE_DONE) fail(database_, text_);
    return result == SQLITE_ROW;
  }

  // Of the row: the columns are (id, text).
  [[nodiscard]] Note note() const {
    const void* text = sqlite3_column_blob(statement_, 1);
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(statement_, 1));
    return {.id = sqlite3_column_int64(statement_, 0),
            .text = size == 0 ? "" : std::string(static_cast<const char*>(text), size)};
  }

 private:
  Statement& checked(int result) {
    if (result != SQLITE_OK) fail(database_, text_);
    return *this;
  }

  sqlite3* database_;
  std::string_view text_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

}  // namespace

void Store::Close::operator()(sqlite3* database) const noexcept {
  sqlite3_close(database);
}

Store::Store(const std::string& path) {
  sqlite3* database = nullptr;
  const int result =
      sqlite3_open_v2(path.c_str(), &database,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  database_.reset(database);
  if (result != SQLITE_OK) fail(database, "open " + path);
  sqlite3_busy_timeout(database, kPatienceMs);
  // With a write-ahead log readers and the writer do not wait for each other. The file remembers
  // it; a worker that is refused, because another one is writing just now, does without.
  sqlite3_exec(database, "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr);
  if (sqlite3_exec(database, kSchema, nullptr, nullptr, nullptr) != SQLITE_OK) {
    fail(database, "make the tables in " + path);
  }
}

Note Store::add(const std::string& text) {
  Statement insert(database_.get(), "INSERT INTO notes (text) VALUES (?)");
  insert.bind(text).step();
  return {.id = sqlite3_last_insert_rowid(database_.get()), .text = text};
}

std::optional<Note> Store::find(std::int64_t id) {
  Statement select(database_.get(), "SELECT id, text FROM notes WHERE id = ?");
  if (!select.bind(id).step()) return std::nullopt;
  return select.note();
}

std::vector<Note> Store::list(std::int64_t after, int most) {
  Statement select(database_.get(), "SELECT id, text FROM notes WHERE id > ? ORDER BY id LIMIT ?");
  select.bind(after).bind(most);
  std::vector<Note> notes;
  while (select.step()) notes.push_back(select.note());
  return notes;
}

bool Store::change(const Note& note) {
  Statement update(database_.get(), "UPDATE notes SET text = ? WHERE id = ?");
  update.bind(note.text).bind(note.id).step();
  return sqlite3_changes(database_.get()) > 0;
}

bool Store::remove(std::int64_t id) {
  Statement remove(database_.get(), "DELETE FROM notes WHERE id = ?");
  remove.bind(id).step();
  return sqlite3_changes(database_.get()) > 0;
}

Store& Stores::mine() {
  const std::lock_guard lock(mutex_);
  // A map's elements stay where they are.
  return stores_.try_emplace(std::this_thread::get_id(), path_).first->second;
}

void Stores::close() {
  const std::lock_guard lock(mutex_);
  stores_.clear();
}

}  // namespace notes
