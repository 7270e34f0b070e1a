#include "config/src/yaml_reader.hpp"

#include <doctest/doctest.h>

#include "stable.hpp"

namespace ostler::config {
namespace {

struct Result {
  NodePtr root;
  Lines faults;
};

Result read(std::string_view text) {
  const auto source = std::make_shared<const Source>(Source{"f", "/", {}, {}});
  Faults faults;
  const NodePtr root = read_yaml(text, source, faults);
  return {root, texts(faults.sorted())};
}

// The tree as text, so that a test can hold it against another.
std::string dump(const Node& node) {
  std::string out;
  switch (node.kind) {
    case NodeKind::kNull:
      return "null";
    case NodeKind::kScalar:
      return (node.plain ? "" : "'") + node.text;
    case NodeKind::kList:
      for (const NodePtr& item : node.items) out += (out.empty() ? "" : ",") + dump(*item);
      return "[" + out + "]";
    case NodeKind::kMap:
      for (const Entry& entry : node.entries) {
        out += (out.empty() ? "" : ",") + entry.key + ":" + dump(*entry.value);
      }
      return "{" + out + "}";
  }
  return out;
}

std::string dump(std::string_view text) {
  const Result result = read(text);
  CHECK(result.faults == Lines{});
  return result.root == nullptr ? "" : dump(*result.root);
}

std::string repeated(std::string_view unit, std::size_t times) {
  std::string out;
  for (std::size_t i = 0; i < times; ++i) out += unit;
  return out;
}

}  // namespace

TEST_CASE("scalars stay text, and say whether they were quoted") {
  CHECK(dump("{a: 0660, b: \"off\", c: off, d: 'x', e: 1_000, f: true}") ==
        "{a:0660,b:'off,c:off,d:'x,e:1_000,f:true}");
  CHECK(dump("a:\nb: ~\nc: null\nd: \"null\"\ne: ''") == "{a:null,b:null,c:null,d:'null,e:'}");
  CHECK(dump("a: |\n  x\n  y\n") == "{a:'x\ny\n}");
  CHECK(dump("\xEF\xBB\xBF"
             "a: b") == "{a:b}");
  CHECK(dump("a: b\r\nc:\r\n  - d\r\n") == "{a:b,c:[d]}");
  CHECK(dump("%YAML 1.2\n---\na: b\n...\n") == "{a:b}");
  CHECK(dump("") == "null");
}

TEST_CASE("every part knows its line and column") {
  const Result result = read("a: 1\nb:\n  - x\n  - {c: d}\n");
  const Entry* b = result.root->find("b");
  REQUIRE(b != nullptr);
  CHECK(b->place.text() == "f:2:1");
  CHECK(b->value->items[0]->place.text() == "f:3:5");
  CHECK(b->value->items[1]->find("c")->place.text() == "f:4:6");
  CHECK(b->value->items[1]->find("c")->value->place.text() == "f:4:9");
}

TEST_CASE("a null that is written out is told from one that is not there") {
  const Result result = read("a: null\nb:\nc: ~\nd: {e: }\n");
  CHECK(result.root->find("a")->value->text == "null");
  CHECK(result.root->find("b")->value->text.empty());
  CHECK(result.root->find("b")->value->place.text() == "f:2:1");
  CHECK(result.root->find("c")->value->text == "null");
  CHECK(result.root->find("d")->value->find("e")->value->text.empty());

  // What comes next may look like one.
  const Result next = read("a:\nnullify: [null, ~]\nb: {c: null}\nd:\n~e:\nnull-f: null # g\n");
  CHECK(next.faults == Lines{});
  for (const char* key : {"a", "d", "~e"}) {
    CAPTURE(key);
    CHECK(next.root->find(key)->value->text.empty());
  }
  CHECK(next.root->find("nullify")->value->items[0]->text == "null");
  CHECK(next.root->find("nullify")->value->items[1]->text == "null");
  CHECK(next.root->find("b")->value->find("c")->value->text == "null");
  CHECK(next.root->find("null-f")->value->text == "null");
}

TEST_CASE("duplicate keys are faults, each of them, wherever they are") {
  const Result result = read("a: 1\n\"a\": 2\nb:\n  - {c: 1, d: 2, c: 3}\na: 4\n");
  CHECK(result.faults == Lines{"f:2:1: a: duplicate key 'a'; first given at f:1:1",
                               "f:4:18: b[0].c: duplicate key 'c'; first given at f:4:6",
                               "f:5:1: a: duplicate key 'a'; first given at f:1:1"});
  CHECK(dump(*result.root) == "{a:1,b:[{c:1,d:2}]}");
}

TEST_CASE("aliases stand for the whole value") {
  CHECK(dump("a: &x {b: [1]}\nc: *x\n") == "{a:{b:[1]},c:{b:[1]}}");
  CHECK(dump("a: &k key\nb: {*k : 1}\n") == "{a:key,b:{key:1}}");
  CHECK(read("a: &x [*x]").faults == Lines{"f:1:8: a[0]: an alias within the value it stands for"});
  CHECK(has(read("a: *x").faults, {"f:1:4: not valid YAML", "not defined", "needs quotes"}));
}

TEST_CASE("an alias bomb is refused before it goes off") {
  std::string bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    const std::string last = "*a" + std::to_string(i - 1);
    bomb += "a" + std::to_string(i) + ": &a" + std::to_string(i) + " [" +
            repeated(last + ", ", 10) + "]\n";
  }
  const Result result = read(bomb);
  CHECK(result.root == nullptr);
  REQUIRE(result.faults.size() == 1);
  CHECK(has(result.faults, {"holds more than 250000 values, all that aliases stand for counted"}));

  const std::string long_text =
      "a: &a " + std::string(500'000, 'x') + "\nb: [" + repeated("*a, ", 5000) + "]";
  CHECK(read(long_text).root == nullptr);
}

TEST_CASE("nesting is bounded") {
  CHECK(read(repeated("[", 32) + repeated("]", 32)).root != nullptr);
  CHECK(has(read(repeated("[", 33) + repeated("]", 33)).faults, {"nested deeper than 32 levels"}));
  CHECK(has(read(repeated("- ", 100'000)).faults, {"nested deeper than 32 levels"}));
  CHECK(read(repeated("{a: ", 100'000)).root == nullptr);
  CHECK(read(repeated("[", 1'000'000)).root == nullptr);
}

TEST_CASE("what this subset of YAML leaves out") {
  CHECK(has(read("a: !!str x").faults, {"f:1:4: a: tags such as", "not supported"}));
  CHECK(has(read("a: !custom {b: c}").faults, {"tags such as '!custom'"}));
  CHECK(
      has(read("a: &x {b: c}\nd: {<<: *x}").faults, {"f:2:5: d.<<: merge keys are not supported"}));
  CHECK(dump("{\"<<\": x}") == "{<<:x}");
  CHECK(has(read("a: 1\n---\nb: 2\n").faults, {"f:2:1: a second document"}));
  CHECK(has(read("? [a]\n: b").faults, {"a list or a map cannot be a key"}));
  CHECK(has(read("{~: a}").faults, {"a key must be text"}));
}

TEST_CASE("bytes that are no text are refused where they are") {
  CHECK(read(std::string("a: b\nc: \0d", 10)).faults ==
        Lines{"f:2:4: holds a NUL byte (\\x00); a configuration is text in UTF-8"});
  // The parser takes this one for the end of the file.
  CHECK(has(read("a: b\n\x04"
                 "c: d\n")
                .faults,
            {"f:2:1: holds a control character (\\x04)"}));
  CHECK(has(read("a: \x1b[0m").faults, {"f:1:4: holds a control character (\\x1b)"}));
  CHECK(read("a: b\nc: \xFF\n").faults ==
        Lines{"f:2:4: is not valid UTF-8; save the file as UTF-8"});
  CHECK(has(read(std::string("\xFF\xFE"
                             "a\0",
                             4))
                .faults,
            {"NUL"}));
  CHECK(has(read("a: \"x\\0y\"").faults, {"f:1:4: a: holds a NUL character"}));
  CHECK(dump("a: \"\\x04\\e\"") == "{a:'\x04\x1b}");
}

TEST_CASE("syntax errors say what to do") {
  CHECK(
      has(read("a: b: c").faults, {"f:1:5: not valid YAML", "text that holds ': ' needs quotes"}));
  CHECK(has(read("a: [1, 2").faults, {"a '[' is not closed, or text with brackets lacks quotes"}));
  CHECK(has(read("a: {b: 1").faults, {"a '{' is not closed"}));
  CHECK(has(read("a: \"x").faults, {"a quote is not closed"}));
  CHECK(has(read("a: @x").faults, {"a value that begins with this needs quotes"}));
  CHECK(has(read("include: [*.yaml]").faults, {"begins with '*' or '&' needs quotes"}));
  CHECK(has(read("a:\n  b: 1\n c: 2").faults, {"f:3:2", "indentation"}));
}

}  // namespace ostler::config
