#include "config/document.h"

#include <fmt/format.h>
#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <map>
#include <sstream>

namespace gpuslice::config {

std::string_view kind_name(const Node& node) {
  switch (node.kind) {
    case NodeKind::kNull:
      return "nothing";
    case NodeKind::kList:
      return "a list";
    case NodeKind::kMap:
      return "a map";
    case NodeKind::kScalar:
      break;
  }
  if (node.quoted) return "a text";
  if (node.text == "true" || node.text == "false") return "true or false";
  const bool number =
      !node.text.empty() && node.text.find_first_not_of("0123456789.-+") == std::string::npos;
  return number ? "a number" : "a text";
}

const Node* Document::find(const Node& map, std::string_view key) const {
  for (auto it = map.entries.rbegin(); it != map.entries.rend(); ++it)
    if (it->key == key) return &nodes_[it->value];
  return nullptr;
}

namespace {

// What stops the reading of a text early; thrown through yaml-cpp and caught in Document::parse.
struct Stop {};

Place place_of(const YAML::Mark& mark) {
  if (mark.line < 0) return {};
  return {static_cast<uint32_t>(mark.line) + 1, static_cast<uint32_t>(mark.column) + 1};
}

}  // namespace

// Takes yaml-cpp's events and builds the tree.
class TreeBuilder : public YAML::EventHandler {
 public:
  TreeBuilder(Document& document, Problems& problems) : document_(document), problems_(problems) {
    document_.nodes_.clear();
  }

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    leaf(mark, anchor, NodeKind::kNull, {}, false);
  }
  void OnScalar(const YAML::Mark& mark, const std::string& tag, YAML::anchor_t anchor,
                const std::string& value) override {
    const bool quoted = tag == "!" || tag == "tag:yaml.org,2002:str";
    leaf(mark, anchor, NodeKind::kScalar, value, quoted);
  }
  void OnAlias(const YAML::Mark& mark, YAML::anchor_t anchor) override {
    const auto it = anchors_.find(anchor);
    if (it == anchors_.end() || !it->second.whole) {
      problems_.error(Mistake::kSyntax, place_of(mark), "an alias inside what it stands for");
      throw Stop{};
    }
    count(it->second.weight, place_of(mark));
    put(it->second.node, place_of(mark));
  }
  void OnSequenceStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                       YAML::EmitterStyle::value) override {
    open(mark, anchor, NodeKind::kList);
  }
  void OnSequenceEnd() override { close(); }
  void OnMapStart(const YAML::Mark& mark, const std::string&, YAML::anchor_t anchor,
                  YAML::EmitterStyle::value) override {
    open(mark, anchor, NodeKind::kMap);
  }
  void OnMapEnd() override { close(); }

 private:
  struct Anchor {
    size_t node = 0;
    size_t weight = 0;  // nodes below it
    bool whole = false;
  };
  struct Open {
    size_t node = 0;
    YAML::anchor_t anchor = 0;
    size_t weight_before = 0;
    bool has_key = false;
    Entry key;
  };

  void count(size_t nodes, Place place) {
    weight_ += nodes;
    if (weight_ <= kMaxNodes) return;
    problems_.error(Mistake::kTooLarge, place,
                    fmt::format("more than {} values: this is no configuration", kMaxNodes));
    throw Stop{};
  }

  size_t make(const YAML::Mark& mark, NodeKind kind) {
    count(1, place_of(mark));
    Node node;
    node.kind = kind;
    node.place = place_of(mark);
    document_.nodes_.push_back(std::move(node));
    return document_.nodes_.size() - 1;
  }

  void leaf(const YAML::Mark& mark, YAML::anchor_t anchor, NodeKind kind, const std::string& text,
            bool quoted) {
    const size_t index = make(mark, kind);
    document_.nodes_[index].text = text;
    document_.nodes_[index].quoted = quoted;
    if (anchor != 0) anchors_[anchor] = {index, 1, true};
    put(index, place_of(mark));
  }

  void open(const YAML::Mark& mark, YAML::anchor_t anchor, NodeKind kind) {
    if (stack_.size() >= kMaxDepth) {
      problems_.error(Mistake::kTooLarge, place_of(mark),
                      fmt::format("nested deeper than {} levels", kMaxDepth));
      throw Stop{};
    }
    const size_t before = weight_;
    const size_t index = make(mark, kind);
    if (anchor != 0) anchors_[anchor] = {index, 0, false};
    stack_.push_back({index, anchor, before, false, Entry{}});
  }

  void close() {
    const Open top = stack_.back();
    stack_.pop_back();
    if (top.anchor != 0) anchors_[top.anchor] = {top.node, weight_ - top.weight_before, true};
    put(top.node, document_.nodes_[top.node].place);
  }

  // A whole value: the key or the value of the map that is open, an item of the list, or the root.
  void put(size_t index, Place place) {
    if (stack_.empty()) {
      document_.root_ = index;
      return;
    }
    Open& top = stack_.back();
    if (document_.nodes_[top.node].kind == NodeKind::kList) {
      document_.nodes_[top.node].items.push_back(index);
      return;
    }
    if (!top.has_key) {
      const Node& key = document_.nodes_[index];
      if (key.kind != NodeKind::kScalar && key.kind != NodeKind::kNull) {
        problems_.error(Mistake::kSyntax, place,
                        "a key must be a word, not " + std::string(kind_name(key)));
        throw Stop{};
      }
      top.key = {key.text, place, 0, false};
      top.has_key = true;
      return;
    }
    top.has_key = false;
    top.key.value = index;
    if (top.key.key == "<<" && document_.nodes_[index].kind == NodeKind::kMap)
      merge(top.node, index);
    else
      document_.nodes_[top.node].entries.push_back(top.key);
  }

  // YAML's merge key: what the map itself says goes first.
  void merge(size_t into, size_t from) {
    std::vector<Entry> entries = document_.nodes_[from].entries;
    for (Entry& entry : entries) entry.merged = true;
    std::vector<Entry>& target = document_.nodes_[into].entries;
    target.insert(target.begin(), entries.begin(), entries.end());
  }

  Document& document_;
  Problems& problems_;
  std::map<YAML::anchor_t, Anchor> anchors_;
  std::vector<Open> stack_;
  size_t weight_ = 0;
};

namespace {

// YAML forbids tabs as indentation; yaml-cpp's word for it does not say so.
bool has_tab_indentation(std::string_view text, Problems& problems) {
  uint32_t line = 1;
  for (size_t start = 0; start < text.size(); ++line) {
    const size_t end = std::min(text.find('\n', start), text.size());
    const std::string_view row = text.substr(start, end - start);
    const size_t first = row.find_first_not_of(' ');
    if (first != std::string_view::npos && row[first] == '\t') {
      const size_t word = row.find_first_not_of(" \t\r");
      if (word != std::string_view::npos && row[word] != '#') {
        problems.error(Mistake::kTab, {line, static_cast<uint32_t>(first) + 1},
                       "a tab as indentation: YAML takes blanks only; write two blanks for it");
        return true;
      }
    }
    start = end + 1;
  }
  return false;
}

// "while parsing a flow sequence" and such, as yaml-cpp says it, made one sentence.
std::string syntax_message(const YAML::ParserException& e) {
  return fmt::format("not YAML: {}", e.msg);
}

}  // namespace

Document Document::parse(std::string_view text, bool lenient, Problems& problems) {
  Document document;
  if (text.size() > kMaxFileBytes) {
    problems.error(
        Mistake::kTooLarge, {},
        fmt::format("{} bytes: a configuration has at most {}", text.size(), kMaxFileBytes));
    return document;
  }
  if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
  if (has_tab_indentation(text, problems)) return document;
  if (const size_t zero = text.find('\0'); zero != std::string_view::npos) {
    problems.error(Mistake::kSyntax, {}, "not a text: it has a zero byte");
    return document;
  }
  try {
    std::istringstream in{std::string(text)};
    YAML::Parser parser(in);
    TreeBuilder builder(document, problems);
    const bool any = parser.HandleNextDocument(builder);
    if (!any) document.nodes_ = {Node{}};
    Document rest;
    Problems unheard;
    TreeBuilder second(rest, unheard);
    if (any && parser.HandleNextDocument(second)) {
      const Place place = rest.nodes_.empty() ? Place{} : rest.root().place;
      if (lenient)
        problems.warning(Mistake::kSecondDocument, place,
                         "a second document in this file is ignored");
      else
        problems.error(
            Mistake::kSecondDocument, place,
            "a second document in this file: only one is read; put it into a file of its own");
    }
  } catch (const YAML::ParserException& e) {
    problems.error(Mistake::kSyntax, place_of(e.mark), syntax_message(e));
  } catch (const Stop&) {
    if (!problems.has_errors())
      problems.error(Mistake::kSyntax, {}, "a second document in this file is malformed");
  } catch (const std::exception& e) {
    problems.error(Mistake::kSyntax, {}, fmt::format("not YAML: {}", e.what()));
  }
  if (problems.has_errors() || document.nodes_.empty()) {
    document.nodes_ = {Node{}};
    document.root_ = 0;
  }
  return document;
}

}  // namespace gpuslice::config
