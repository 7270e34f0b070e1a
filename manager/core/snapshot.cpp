#include "core/snapshot.hpp"

#include "core/archive.hpp"

namespace ostler::core {
namespace {

constexpr int kVersion = 5;

template <class T>
std::string written(const T& value) {
  Writer writer;
  writer(value);
  return writer.take();
}

template <class T>
std::optional<T> read(std::string_view text) {
  Reader reader(text);
  T value;
  reader(value);
  if (!reader.complete()) return std::nullopt;
  return value;
}

}  // namespace

std::string write(const State& state) {
  Writer writer;
  writer(kVersion)(state);
  return writer.take();
}

std::optional<State> read_state(std::string_view text) {
  Reader reader(text);
  int version = 0;
  State state;
  reader(version);
  if (version != kVersion) return std::nullopt;
  reader(state);
  if (!reader.complete()) return std::nullopt;
  return state;
}

std::string write(const Event& event) {
  return written(event);
}
std::optional<Event> read_event(std::string_view text) {
  return read<Event>(text);
}
std::string write(const Action& action) {
  return written(action);
}
std::optional<Action> read_action(std::string_view text) {
  return read<Action>(text);
}

}  // namespace ostler::core
