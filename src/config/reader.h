#pragma once

// The strict reading of maps, shared by the files that we read: which keys are known, what else a
// key could have meant, and typed scalars. Not a public header of config/.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "config/document.h"
#include "config/problems.h"

namespace gpuslice::config {

// Where a key belongs, for keys that stand at the wrong place: {"renameByDefault",
// "sharing.timeSlicing"}.
struct KnownKey {
  std::string_view key;
  std::string_view parent;  // "" is the top
};

struct MapRules {
  std::string_view parent;                 // "sharing.timeSlicing", for messages; "" is the top
  std::span<const std::string_view> keys;  // those that may stand here
  bool any_case = false;                   // NVIDIA's reader takes these keys in any case
};

class MapReader {
 public:
  // `tolerant`: what NVIDIA's plugin ignores is a warning.
  MapReader(const Document& document, std::span<const KnownKey> known, bool tolerant,
            Problems& problems)
      : document_(document), known_(known), tolerant_(tolerant), problems_(problems) {}

  // The entries of `map` that may stand there, each key once (the last counts), spelled as in
  // `rules`; everything else is reported. Nothing if `node` is no map (reported too); a null is an
  // empty map.
  struct Field {
    std::string_view key;
    const Node* value = nullptr;
    Place place;
  };
  [[nodiscard]] std::optional<std::vector<Field>> fields(const Node& node,
                                                         const MapRules& rules) const;

  // Typed scalars; `path` names the key in messages. Nothing, and a problem, when it is something
  // else.
  [[nodiscard]] std::optional<bool> boolean(const Node& node, std::string_view path) const;
  [[nodiscard]] std::optional<int64_t> integer(const Node& node, std::string_view path) const;
  [[nodiscard]] std::optional<std::string> text(const Node& node, std::string_view path) const;

  void wrong_type(const Node& node, std::string_view path, std::string_view wanted) const;
  // An error, or a warning that says that it is ignored, where NVIDIA's plugin would ignore it.
  void ignorable(Mistake mistake, Place place, const std::string& message) const;

  [[nodiscard]] const Document& document() const { return document_; }
  [[nodiscard]] Problems& problems() const { return problems_; }
  [[nodiscard]] bool tolerant() const { return tolerant_; }

 private:
  void unknown_key(const Entry& entry, const MapRules& rules) const;

  const Document& document_;
  std::span<const KnownKey> known_;
  bool tolerant_;
  Problems& problems_;
};

// "a.b" of "a" and "b"; "b" of "" and "b".
[[nodiscard]] std::string path_of(std::string_view parent, std::string_view key);
// What a message shows of a scalar: at most 60 bytes of it, escaped.
[[nodiscard]] std::string shown(std::string_view text);

}  // namespace gpuslice::config
