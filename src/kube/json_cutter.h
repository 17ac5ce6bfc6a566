#pragma once

// Cuts a JSON text that arrives in pieces of any size into the objects that matter, so that no more
// than one of them is ever held: the events of a watch (one object after another), or the elements
// of a list's "items". It looks at brackets and quotes only; whoever reads an object judges it.

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

#include "base/result.h"

namespace gpuslice::kube {

// etcd refuses objects beyond 1.5 MiB; managed fields and the watch's wrapping come on top.
inline constexpr size_t kMaxObjectBytes = 4 * 1024 * 1024;
// What stands around the items of a list.
inline constexpr size_t kMaxEnvelopeBytes = 256 * 1024;
inline constexpr size_t kMaxJsonDepth = 64;

class JsonCutter {
 public:
  enum class Cut {
    kStream,  // top-level objects, one after another
    kItems,   // the elements of the array "items" of one top-level object
  };
  // Called with a whole object; a refusal ends the cutting.
  using Piece = std::function<Status(std::string_view object)>;

  explicit JsonCutter(Cut cut) : cut_(cut) {}

  // kFailed: no such JSON, or beyond a limit; nothing more may be pushed then.
  [[nodiscard]] Status push(std::string_view bytes, const Piece& piece);
  // The text is over. kFailed: it is over in the middle. The list without its items, each of which
  // left a 0 behind ({"kind":"PodList","items":[0,0]}); empty for a stream.
  [[nodiscard]] Result<std::string> end();

 private:
  [[nodiscard]] Status take(char c, const Piece& piece);
  [[nodiscard]] Status bracket(char c, const Piece& piece);
  [[nodiscard]] bool begins_piece() const;

  Cut cut_;
  bool in_string_ = false;
  bool escaped_ = false;
  bool in_items_ = false;  // directly inside the array "items"
  bool cutting_ = false;   // inside a piece
  bool over_ = false;      // the list's own object was closed
  size_t depth_ = 0;
  size_t piece_depth_ = 0;  // depth outside the piece
  std::string open_;        // the open brackets, innermost last
  std::string key_;         // the last string at depth 1, as long as it may be "items"
  std::string piece_;
  std::string envelope_;
};

}  // namespace gpuslice::kube
