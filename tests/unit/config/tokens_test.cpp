#include "config/src/tokens.hpp"

#include <doctest/doctest.h>

#include "stable.hpp"

namespace ostler::config {
namespace {

Lines tokens(std::string_view text, const std::vector<std::string_view>& names = {"http"}) {
  Lines out;
  for (const Token& token : find_tokens(text, names)) out.emplace_back(token.text);
  return out;
}

Lines misspelt(std::string_view text) {
  Lines out;
  for (const Misspelt& one : find_misspelt_tokens(text)) {
    out.push_back(std::string(one.text) + " " + std::string(one.meant));
  }
  return out;
}

}  // namespace

TEST_CASE("the exact tokens, and no other brace") {
  CHECK(tokens("{fd}{fd:http} {slot}-{pool}.{generation}") ==
        Lines{"{fd}", "{fd:http}", "{slot}", "{pool}", "{generation}"});
  CHECK(tokens("{{slot}}") == Lines{"{slot}"});
  CHECK(tokens("{ slot} {slot } {SLOT} {} { {fd {fd: {fd:}").empty());
}

TEST_CASE("a listener's name begins with a letter: {fd:3} is a line of JavaScript") {
  CHECK(tokens("listen({fd: 3}, () => {})").empty());
  CHECK(tokens("listen({fd:3})").empty());
  CHECK(tokens("listen({fd:3})", {"3"}).empty());
  CHECK(tokens("listen({fd:sockets[0], backlog:1})").empty());
  CHECK(tokens("{fd:admin}") == Lines{"{fd:admin}"});  // no listener's name, which is a fault
  CHECK(tokens("{fd:a b}", {"a b"}) == Lines{"{fd:a b}"});
  CHECK(tokens("{fd:a b}").empty());
}

TEST_CASE("what has a value is replaced, the rest stays") {
  const auto value = [](const Token& token) -> std::optional<std::string> {
    if (token.kind == TokenKind::kSlot) return "7";
    return std::nullopt;
  };
  CHECK(replace_tokens("a{slot}b{pool}{slot}", {}, value) == "a7b{pool}7");
  CHECK(replace_tokens("", {}, value).empty());
  CHECK(replace_tokens("{slot", {}, value) == "{slot");
}

TEST_CASE("a word one letter or a transposition away from a token is misspelt") {
  CHECK(misspelt("{slto} {solt} {slots} {poool} {genration} {generatino} {Slot}") ==
        Lines{"{slto} {slot}", "{solt} {slot}", "{slots} {slot}", "{poool} {pool}",
              "{genration} {generation}", "{generatino} {generation}", "{Slot} {slot}"});
  CHECK(misspelt("{slot} {pool} {generation} {fd}").empty());
  CHECK(misspelt("{slo} {fdd} {plot two} {other} {SLOT} {pol} {id: 1} {slot:1}").empty());
  CHECK(misspelt("{slto").empty());
  CHECK(misspelt("{a{slto}") == Lines{"{slto} {slot}"});
}

}  // namespace ostler::config
