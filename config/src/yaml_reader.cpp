#include "config/src/yaml_reader.hpp"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/exceptions.h>
#include <yaml-cpp/parser.h>

#include <algorithm>
#include <array>
#include <map>
#include <sstream>
#include <utility>

#include "config/src/text.hpp"

namespace ostler::config {
namespace {

// The value of an option has no lines.
Place place_of(const YAML::Mark& mark, const SourcePtr& source) {
  if (!source->option.empty()) return {source, 0, 0};
  return {source, std::max(mark.line, 0) + 1, std::max(mark.column, 0) + 1};
}

// Ends the reading of a document; its fault is already in the list.
struct Abandon {};

// Builds the tree from the parser's events.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(std::string_view text, const SourcePtr& source, Faults& faults,
              const std::string& path)
      : text_(text), source_(source), faults_(faults), base_(path) {}

  [[nodiscard]] NodePtr root() const { return root_; }

  void OnDocumentStart(const YAML::Mark& mark) override {
    if (documents_++ > 0)
      abandon(place(mark),
              "a second document, or text that does not belong to the first; a file holds one");
  }
  void OnDocumentEnd() override {}

  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    auto node = make(NodeKind::kNull, mark);
    if (written_out(mark)) {
      node->text = "null";
    } else if (key_pending()) {
      node->place = stack_.back().entry.place;  // the mark is that of whatever follows
    }
    finish(std::move(node), anchor);
  }

  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto found = anchors_.find(anchor);
    if (found == anchors_.end()) abandon(place(mark), "an alias within the value it stands for");
    add(found->second, place(mark));
  }

  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    check_tag(mark, tag);
    auto node = make(NodeKind::kScalar, mark);
    node->text = value;
    node->plain = tag == "?";
    node->weight = weight_of_text(value.size());
    if (value.find('\0') != std::string::npos) {
      faults_.add(node->place, path(), "holds a NUL character, which no system call would accept");
    }
    finish(std::move(node), anchor);
  }

  void OnSequenceStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(NodeKind::kList, mark, tag, anchor);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(NodeKind::kMap, mark, tag, anchor);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Frame {
    std::shared_ptr<Node> node;
    YAML::anchor_t anchor = 0;
    bool has_key = false;  // `entry` holds a key that waits for its value
    bool drop = false;     // ... which is then left out, the key being faulty
    Entry entry;
  };

  [[nodiscard]] Place place(const YAML::Mark& mark) const { return place_of(mark, source_); }

  [[nodiscard]] bool key_pending() const { return !stack_.empty() && stack_.back().has_key; }

  // Whether a null is there as a word, and not just left out.
  [[nodiscard]] bool written_out(const YAML::Mark& mark) const {
    const auto at = std::min(static_cast<std::size_t>(std::max(mark.pos, 0)), text_.size());
    const std::string_view rest = text_.substr(at);
    const std::string_view word = rest.substr(0, rest.find_first_of(" \t\r\n,]}"));
    return word == "~" || word == "null" || word == "Null" || word == "NULL";
  }

  [[nodiscard]] std::string path() const {
    std::string out = base_;
    for (const Frame& frame : stack_) {
      if (frame.node->kind == NodeKind::kList) {
        out += "[" + std::to_string(frame.node->items.size()) + "]";
      } else if (frame.has_key) {
        out = join_path(out, frame.entry.key);
      }
    }
    return out;
  }

  [[noreturn]] void abandon(const Place& place, std::string message) {
    faults_.add(place, path(), std::move(message));
    throw Abandon{};
  }

  [[nodiscard]] std::shared_ptr<Node> make(NodeKind kind, const YAML::Mark& mark) const {
    auto node = std::make_shared<Node>();
    node->kind = kind;
    node->place = place(mark);
    return node;
  }

  void check_tag(const YAML::Mark& mark, const std::string& tag) {
    if (tag.empty() || tag == "?" || tag == "!") return;
    faults_.add(place(mark), path(),
                "tags such as " + quote(tag) + " are not supported; quotes make a value a string");
  }

  void open(NodeKind kind, const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor) {
    check_tag(mark, tag);
    if (stack_.size() >= kMaxNesting) {
      abandon(place(mark), "nested deeper than " + std::to_string(kMaxNesting) + " levels");
    }
    if (!stack_.empty() && stack_.back().node->kind == NodeKind::kMap && !stack_.back().has_key) {
      abandon(place(mark), "a list or a map cannot be a key; is its bracket closed?");
    }
    Frame frame;
    frame.node = make(kind, mark);
    frame.anchor = anchor;
    stack_.push_back(std::move(frame));
  }

  void close() {
    Frame frame = std::move(stack_.back());
    stack_.pop_back();
    finish(std::move(frame.node), frame.anchor);
  }

  void finish(std::shared_ptr<Node> node, YAML::anchor_t anchor) {
    if (anchor != 0) anchors_[anchor] = node;
    const Place where = node->place;
    add(std::move(node), where);
  }

  void add(NodePtr node, const Place& where) {
    if (stack_.empty()) {
      root_ = std::move(node);
      return;
    }
    Frame& frame = stack_.back();
    frame.node->weight += node->weight;
    if (frame.node->weight > kMaxNodes) {
      abandon(where, "holds more than " + std::to_string(kMaxNodes) +
                         " values, all that aliases stand for counted");
    }
    if (frame.node->kind == NodeKind::kList) {
      frame.node->items.push_back(std::move(node));
    } else if (!frame.has_key) {
      take_key(frame, *node, where);
    } else {
      frame.entry.value = std::move(node);
      if (!frame.drop) frame.node->put(std::move(frame.entry));
      frame.has_key = false;
    }
  }

  void take_key(Frame& frame, const Node& node, const Place& where) {
    if (node.kind != NodeKind::kScalar) abandon(where, "a key must be text");
    frame.entry = {node.text, where, nullptr, false};
    frame.has_key = true;
    const Entry* first = frame.node->find(node.text);
    const bool merge = node.text == "<<" && node.plain;
    frame.drop = first != nullptr || merge;
    if (merge) {
      faults_.add(where, path(),
                  "merge keys are not supported; 'defaults:' gives every pool the same keys, and "
                  "an alias (*name) takes over a whole value");
    } else if (first != nullptr) {
      faults_.add(where, path(),
                  "duplicate key " + quote(node.text) + "; first given at " + first->place.text());
    }
  }

  std::string_view text_;
  const SourcePtr& source_;
  Faults& faults_;
  const std::string& base_;
  int documents_ = 0;
  std::vector<Frame> stack_;
  std::map<YAML::anchor_t, NodePtr> anchors_;
  NodePtr root_;
};

// What the parser says, and what is behind it more often than not.
std::string advice(const std::string& message) {
  struct Advice {
    std::string_view message, text;
  };
  constexpr std::string_view kStar = "a value that begins with '*' or '&' needs quotes";
  constexpr std::string_view kIndent = "look at the indentation, and for brackets and quotes above";
  static const std::array kAdvice = {
      Advice{YAML::ErrorMsg::MAP_VALUE, "text that holds ': ' needs quotes"},
      Advice{YAML::ErrorMsg::ALIAS_NOT_FOUND, kStar},
      Advice{YAML::ErrorMsg::CHAR_IN_ALIAS, kStar},
      Advice{YAML::ErrorMsg::UNKNOWN_ANCHOR, kStar},
      Advice{YAML::ErrorMsg::CHAR_IN_ANCHOR, kStar},
      Advice{YAML::ErrorMsg::ALIAS_CONTENT, kStar},
      Advice{YAML::ErrorMsg::UNKNOWN_TOKEN, "a value that begins with this needs quotes"},
      Advice{YAML::ErrorMsg::END_OF_MAP, kIndent},
      Advice{YAML::ErrorMsg::END_OF_SEQ, kIndent},
      Advice{YAML::ErrorMsg::END_OF_MAP_FLOW,
             "a '{' is not closed, or text with brackets lacks quotes"},
      Advice{YAML::ErrorMsg::END_OF_SEQ_FLOW,
             "a '[' is not closed, or text with brackets lacks quotes"},
      Advice{YAML::ErrorMsg::EOF_IN_SCALAR, "a quote is not closed"},
      Advice{YAML::ErrorMsg::TAB_IN_INDENTATION, "indent with spaces"},
  };
  for (const Advice& one : kAdvice) {
    if (message.starts_with(one.message)) return shown(message) + "; " + std::string(one.text);
  }
  return shown(message);
}

Place place_of(std::string_view text, std::size_t offset, const SourcePtr& source) {
  const std::string_view before = text.substr(0, offset);
  const auto lines = std::count(before.begin(), before.end(), '\n');
  const std::size_t start = before.rfind('\n') + 1;  // npos + 1 is 0
  YAML::Mark mark;
  mark.line = static_cast<int>(lines);
  mark.column = static_cast<int>(offset - start);
  return place_of(mark, source);
}

// The parser would take some of these for the end of the file, and drop the rest without a word.
bool is_control(char c) {
  const auto byte = static_cast<unsigned char>(c);
  return (byte < 0x20 && c != '\t' && c != '\n' && c != '\r') || byte == 0x7F;
}

bool readable_text(std::string_view text, const SourcePtr& source, Faults& faults,
                   const std::string& path) {
  const auto control = std::find_if(text.begin(), text.end(), is_control);
  if (control != text.end()) {
    const auto offset = static_cast<std::size_t>(control - text.begin());
    const std::string what = *control == '\0' ? "a NUL byte" : "a control character";
    faults.add(
        place_of(text, offset, source), path,
        "holds " + what + " (" + shown({&*control, 1}) + "); a configuration is text in UTF-8");
    return false;
  }
  if (const auto bad = first_invalid_utf8(text)) {
    faults.add(place_of(text, *bad, source), path, "is not valid UTF-8; save the file as UTF-8");
    return false;
  }
  return true;
}

}  // namespace

NodePtr read_yaml(std::string_view text, const SourcePtr& source, Faults& faults,
                  const std::string& path) {
  if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);
  if (!readable_text(text, source, faults, path)) return nullptr;
  TreeBuilder builder(text, source, faults, path);
  try {
    std::istringstream stream{std::string(text)};
    YAML::Parser parser(stream);
    while (parser.HandleNextDocument(builder)) {
    }
  } catch (const Abandon&) {
    return nullptr;
  } catch (const YAML::Exception& error) {
    faults.add(place_of(error.mark, source), path, "not valid YAML: " + advice(error.msg));
    return nullptr;
  }
  if (builder.root() != nullptr) return builder.root();
  Node nothing;
  nothing.place = place_of(YAML::Mark(), source);
  return std::make_shared<const Node>(std::move(nothing));
}

}  // namespace ostler::config
