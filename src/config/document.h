#pragma once

// A YAML (or JSON) text as a tree in which every node knows its place. yaml-cpp reads the grammar;
// everything that it is lenient about is decided here: duplicate keys, several documents, tabs,
// aliases, types (a scalar is its text and whether it was quoted: `010` is not 8 and `no` is not
// false until somebody says so). Pure; nothing throws.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "config/problems.h"

namespace gpuslice::config {

// A file beyond these is refused: they bound time and memory against a text that was made to hurt.
inline constexpr size_t kMaxFileBytes = 1024 * 1024;  // a ConfigMap's own limit
inline constexpr size_t kMaxNodes = 200'000;          // aliases counted as often as they are used
inline constexpr size_t kMaxDepth = 64;

struct Node;
struct Entry {
  std::string key;
  Place place;  // of the key
  size_t value = 0;
  bool merged = false;  // came in by YAML's merge key; the map's own word goes before it
};

enum class NodeKind { kNull, kScalar, kList, kMap };

// Nodes live in a Document and refer to each other by index.
struct Node {
  NodeKind kind = NodeKind::kNull;
  Place place;
  std::string text;     // of a scalar
  bool quoted = false;  // a quoted or block scalar, or one tagged !!str: never a number or a bool
  std::vector<size_t> items;   // of a list
  std::vector<Entry> entries;  // of a map, in the order of the file; keys may stand twice
};

class Document {
 public:
  [[nodiscard]] const Node& root() const { return nodes_[root_]; }
  [[nodiscard]] const Node& at(size_t index) const { return nodes_[index]; }
  [[nodiscard]] const Node& value(const Entry& entry) const { return nodes_[entry.value]; }
  // The value of the last entry called `key`, or null.
  [[nodiscard]] const Node* find(const Node& map, std::string_view key) const;

  // Reads `text`. What is wrong goes to `problems`; with an error there, the document is empty. A
  // second document is an error, or with `lenient` a warning, and is dropped.
  [[nodiscard]] static Document parse(std::string_view text, bool lenient, Problems& problems);

 private:
  friend class TreeBuilder;
  std::vector<Node> nodes_ = {Node{}};
  size_t root_ = 0;
};

// "a number", "a list", … for messages.
[[nodiscard]] std::string_view kind_name(const Node& node);

}  // namespace gpuslice::config
