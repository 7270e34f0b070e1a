// Writing values as tokens and reading them back: the mechanism behind snapshots and traces.
//
// A struct takes part by a member `template <class A> void fields(A& a)` that names its members in
// order. Private to manager/core.
#pragma once

#include <charconv>
#include <chrono>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "core/ids.hpp"

namespace ostler::core {

class Writer {
 public:
  template <class T>
  Writer& operator()(const T& value) {
    put(value);
    return *this;
  }
  std::string take() { return std::move(text_); }

 private:
  void number(std::int64_t value) {
    if (!text_.empty()) text_ += ' ';
    text_ += std::to_string(value);
  }
  template <class T>
  requires(std::is_integral_v<T> || std::is_enum_v<T>) void put(const T& value) {
    number(static_cast<std::int64_t>(value));
  }
  void put(const std::string& value) {
    number(static_cast<std::int64_t>(value.size()));
    text_ += ':';
    text_ += value;
  }
  void put(const Duration& value) { number(value.count()); }
  void put(const Time& value) { number(value.time_since_epoch().count()); }
  template <class Tag>
  void put(const Id<Tag>& value) {
    put(value.value);
  }
  template <class T>
  void put(const std::optional<T>& value) {
    put(value.has_value());
    if (value) put(*value);
  }
  template <class A, class B>
  void put(const std::pair<A, B>& value) {
    put(value.first);
    put(value.second);
  }
  template <class... T>
  void put(const std::variant<T...>& value) {
    put(value.index());
    std::visit([&](const auto& alternative) { put(alternative); }, value);
  }
  template <class T>
  requires requires(const T& t) {
    t.begin();
    t.size();
    typename T::value_type;
  } &&(!std::is_same_v<T, std::string>)void put(const T& container) {
    put(container.size());
    for (const auto& element : container) put(element);
  }
  template <class T>
  requires requires(T& t, Writer& w) { t.fields(w); }
  void put(const T& value) {
    const_cast<T&>(value).fields(*this);  // `fields` only reads when a Writer asks
  }

  std::string text_;
};

class Reader {
 public:
  explicit Reader(std::string_view text) : rest_(text) {}

  template <class T>
  Reader& operator()(T& value) {
    if (good_) get(value);
    return *this;
  }
  // Everything was there, nothing is left.
  [[nodiscard]] bool complete() const { return good_ && rest_.empty(); }

 private:
  void fail() { good_ = false; }
  std::int64_t number() {
    if (!rest_.empty() && rest_.front() == ' ') rest_.remove_prefix(1);
    std::int64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error != std::errc{}) {
      fail();
      return 0;
    }
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    return value;
  }
  // A count of things that take at least one character each: no text can ask for more memory
  // than it is long.
  std::size_t length() {
    const std::int64_t value = number();
    if (value < 0 || static_cast<std::uint64_t>(value) > rest_.size()) fail();
    return good_ ? static_cast<std::size_t>(value) : 0;
  }
  template <class T>
  requires(std::is_integral_v<T> || std::is_enum_v<T>) void get(T& value) {
    value = static_cast<T>(number());
  }
  void get(std::string& value) {
    const std::size_t size = length();
    if (!good_ || rest_.size() < size + 1 || rest_.front() != ':') return fail();
    value.assign(rest_.substr(1, size));
    rest_.remove_prefix(size + 1);
  }
  void get(Duration& value) { value = Duration(number()); }
  void get(Time& value) { value = Time(Duration(number())); }
  template <class Tag>
  void get(Id<Tag>& value) {
    get(value.value);
  }
  template <class T>
  void get(std::optional<T>& value) {
    bool there = false;
    get(there);
    value.reset();
    if (there && good_) get(value.emplace());
  }
  template <class... T>
  void get(std::variant<T...>& value) {
    const auto index = static_cast<std::size_t>(number());
    if (index >= sizeof...(T)) return fail();
    alternative<0>(value, index);
  }
  template <std::size_t I, class... T>
  void alternative(std::variant<T...>& value, std::size_t index) {
    if constexpr (I < sizeof...(T)) {
      if (I == index) {
        get(value.template emplace<I>());
      } else {
        alternative<I + 1>(value, index);
      }
    }
  }
  template <class T>
  void get(std::vector<T>& value) {
    sequence(value);
  }
  template <class T>
  void get(std::deque<T>& value) {
    sequence(value);
  }
  template <class T>
  void sequence(T& value) {
    value.clear();
    for (std::size_t left = length(); left > 0 && good_; --left) get(value.emplace_back());
  }
  template <class T>
  void get(std::set<T>& value) {
    value.clear();
    for (std::size_t left = length(); left > 0 && good_; --left) {
      T element{};
      get(element);
      value.insert(std::move(element));
    }
  }
  template <class K, class V>
  void get(std::map<K, V>& value) {
    value.clear();
    for (std::size_t left = length(); left > 0 && good_; --left) {
      K key{};
      get(key);
      get(value[key]);
    }
  }
  template <class T>
  requires requires(T& t, Reader& r) { t.fields(r); }
  void get(T& value) { value.fields(*this); }

  std::string_view rest_;
  bool good_ = true;
};

}  // namespace ostler::core
