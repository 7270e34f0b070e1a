// A client that sends anything at all. The first byte is the size of the pieces in which the rest
// arrives. What is taken for a request must be one in the eyes of a reader that knows nothing of
// ours and is as strict as it can be: no server in front may have seen another.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>

#include <algorithm>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <boost/asio/buffer.hpp>
#include <boost/beast/core/error.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

#include "http/header_scan.hpp"
#include "http/request_rules.hpp"

namespace {

namespace beast = boost::beast;
using ostler::http::HeaderScan;
using Parser = beast::http::request_parser<beast::http::string_body>;

constexpr std::size_t kHeaderLimit = 4096;
constexpr std::uint64_t kBodyLimit = 4096;
constexpr std::string_view kEnd = "\r\n\r\n";

void require(bool holds, const char* what) {
  if (holds) return;
  std::fprintf(stderr, "broken: %s\n", what);
  std::abort();
}

HeaderScan::State scan(std::string_view text, std::size_t piece) {
  HeaderScan scan(kHeaderLimit);
  auto state = scan.look({});
  for (std::size_t size = 0; size < text.size() && state == HeaderScan::State::kIncomplete;) {
    size = std::min(size + piece, text.size());
    state = scan.look(text.substr(0, size));
  }
  return state;
}

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return result;
}

// The values of the fields of this name, without the blanks around them.
std::vector<std::string> values_of(std::string_view header, std::string_view name) {
  std::vector<std::string> values;
  for (auto begin = header.find("\r\n"); begin + kEnd.size() < header.size();) {
    begin += 2;
    const auto end = header.find("\r\n", begin);
    const auto line = header.substr(begin, end - begin);
    const auto colon = std::min(line.find(':'), line.size());
    require(colon > 0 && colon < line.size(), "a field has a name and a colon");
    require(line.substr(0, colon).find_first_of(" \t") == line.npos, "no blank is in a name");
    if (lower(line.substr(0, colon)) == name) {
      auto value = line.substr(colon + 1);
      value.remove_prefix(std::min(value.find_first_not_of(" \t"), value.size()));
      values.push_back(lower(value.substr(0, value.find_last_not_of(" \t") + 1)));
    }
    begin = end;
  }
  return values;
}

void check_header(std::string_view header, const Parser& parser) {
  const auto version = parser.get().version();
  require(version == 10 || version == 11, "other versions are refused");
  for (const char c : header) {
    require(c != '\0' && c != '\v' && c != '\f' && c != '\x7f', "no control characters");
  }
  for (std::size_t at = 0; (at = header.find_first_of("\r\n", at)) != header.npos; at += 2) {
    require(header.substr(at, 2) == "\r\n", "a line ends in CR LF");
    require(at == 0 || at + 2 >= header.size() || (header[at + 2] != ' ' && header[at + 2] != '\t'),
            "no line continues another");
  }
  const auto hosts = values_of(header, "host");
  require(hosts.size() <= 1 && (version < 11 || hosts.size() == 1), "there is one host");
  const auto lengths = values_of(header, "content-length");
  const auto codings = values_of(header, "transfer-encoding");
  require(lengths.empty() || codings.empty(), "a body ends by its length or by its last chunk");
  require(codings.size() <= 1 && (codings.empty() || codings[0] == "chunked"),
          "the only coding is chunked");
  require(codings.empty() || version == 11, "HTTP/1.0 has no codings");
  require(parser.chunked() == !codings.empty(), "chunks are where they were announced");
  for (const auto& length : lengths) {
    require(!length.empty() && length.find_first_not_of("0123456789") == length.npos,
            "a length is digits");
    require(std::to_string(parser.content_length().value_or(~0ULL)) ==
                length.substr(std::min(length.find_first_not_of('0'), length.size() - 1)),
            "the length is the one that was sent");
  }
}

// As the server does.
void look_at_extensions(std::uint64_t /*size*/, beast::string_view text, beast::error_code& error) {
  if (!ostler::http::are_extensions({text.data(), text.size()})) {
    error = beast::http::error::bad_chunk_extension;
  }
}

// A body in chunks, as far as it was read.
struct Chunks {
  std::string body;
  std::size_t size = 0;  // of all that makes it
};

// The next line, which has no control characters. Nothing if there is none, or not all of it.
std::optional<std::string_view> take_line(std::string_view text, std::size_t& at) {
  const auto end = text.find("\r\n", at);
  if (end == text.npos) return std::nullopt;
  const auto line = text.substr(at, end - at);
  at = end + 2;
  const auto is_control = [](char c) { return (c >= 0 && c < ' ' && c != '\t') || c == '\x7f'; };
  if (std::any_of(line.begin(), line.end(), is_control)) return std::nullopt;
  return line;
}

// To the letter of RFC 9112 section 7.1. Nothing if it is no such body, or not all of one.
std::optional<Chunks> read_chunks(std::string_view text) {
  Chunks read;
  while (true) {
    const auto line = take_line(text, read.size);
    if (!line) return std::nullopt;
    const auto digits = std::min(line->find_first_not_of("0123456789abcdefABCDEF"), line->size());
    const auto behind = line->substr(digits, 1);
    if (digits == 0 || behind.find_first_not_of(" \t;") != behind.npos) return std::nullopt;
    const auto size = std::strtoull(std::string(line->substr(0, digits)).c_str(), nullptr, 16);
    if (size == 0) break;
    if (size > text.size() - read.size) return std::nullopt;
    read.body += text.substr(read.size, size);
    read.size += size;
    if (text.substr(read.size, 2) != "\r\n") return std::nullopt;
    read.size += 2;
  }
  while (true) {  // the trailer
    const auto line = take_line(text, read.size);
    if (!line) return std::nullopt;
    if (line->empty()) return read;
  }
}

// How the server reads the body: in pieces, and of chunks not the last few bytes alone.
void read_body(const std::string_view all, std::size_t piece, Parser& parser) {
  auto rest = all;
  const auto length = parser.content_length();
  const std::size_t least = parser.chunked() ? 5 : 1;
  std::size_t there = 0;
  while (!parser.is_done() && there < rest.size()) {
    there = std::min(there + piece, rest.size());
    beast::error_code error;
    while (!error && !parser.is_done() && there >= least) {
      const auto used = parser.put(boost::asio::buffer(rest.data(), there), error);
      require(used <= there, "no more is read than was sent");
      rest.remove_prefix(used);
      there -= used;
    }
    if (error && error != beast::http::error::need_more) return;
  }
  require(parser.get().body().size() <= kBodyLimit, "a body has a limit");
  if (parser.is_done() && length) {
    require(parser.get().body().size() == *length, "a body is as long as was said");
  }
  if (!parser.is_done() || !parser.chunked()) return;
  const auto chunks = read_chunks(all);
  require(chunks.has_value(), "what is taken for chunks is chunks");
  require(chunks->body == parser.get().body(), "a body is what its chunks hold");
  require(chunks->size == all.size() - rest.size(), "the next request is behind the last chunk");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t piece = std::max<std::size_t>(data[0], 1);
  std::string text(data + 1, data + size);
  while (text.starts_with("\r\n")) text.erase(0, 2);  // as the server does
  const auto state = scan(text, text.size() + 1);
  require(scan(text, piece) == state, "it does not matter how a header arrives");
  if (state != HeaderScan::State::kComplete) return 0;

  const auto end = text.find(kEnd);
  require(end != text.npos && end + kEnd.size() <= kHeaderLimit, "a header has its end");
  const auto header = std::string_view(text).substr(0, end + kEnd.size());
  Parser parser;
  parser.header_limit(kHeaderLimit);
  parser.body_limit(kBodyLimit);
  parser.on_chunk_header(look_at_extensions);
  beast::error_code error;
  const auto used = parser.put(boost::asio::buffer(text), error);
  if (error || !parser.is_header_done() || ostler::http::fault_of(parser.get())) return 0;
  require(used >= header.size(), "a header is read as a whole");
  check_header(header, parser);
  if (!parser.is_done()) read_body(std::string_view(text).substr(used), piece, parser);
  return 0;
}
