#include "kube/json_cutter.h"

#include <utility>

namespace gpuslice::kube {
namespace {

constexpr std::string_view kItems = "items";

bool blank(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

}  // namespace

Status JsonCutter::push(std::string_view bytes, const Piece& piece) {
  for (const char c : bytes) TRY(take(c, piece));
  return {};
}

bool JsonCutter::begins_piece() const {
  return !cutting_ && (cut_ == Cut::kStream ? depth_ == 0 : in_items_);
}

Status JsonCutter::take(char c, const Piece& piece) {
  if (!in_string_ && begins_piece() && c == '{') {
    cutting_ = true;
    piece_depth_ = depth_;
    piece_.clear();
    if (cut_ == Cut::kItems) envelope_.push_back('0');
  }
  std::string& into = cutting_ ? piece_ : envelope_;
  const size_t most = cutting_ ? kMaxObjectBytes : kMaxEnvelopeBytes;
  if (cutting_ || cut_ == Cut::kItems) {
    if (into.size() >= most)
      return fail(Code::kFailed, "an object of more than {} bytes in the answer", most);
    into.push_back(c);
  }
  if (in_string_) {
    if (escaped_) {
      escaped_ = false;
    } else if (c == '\\') {
      escaped_ = true;
    } else if (c == '"') {
      in_string_ = false;
      return {};
    }
    if (depth_ == 1 && key_.size() <= kItems.size()) key_.push_back(c);
    return {};
  }
  switch (c) {
    case '"':
      if (depth_ == 0) return fail(Code::kFailed, "the answer is not JSON of an object");
      in_string_ = true;
      if (depth_ == 1) key_.clear();
      return {};
    case '{':
    case '[':
    case '}':
    case ']':
      return bracket(c, piece);
    default:
      if (depth_ == 0 && !blank(c))
        return fail(Code::kFailed, "the answer is not JSON of an object");
      return {};
  }
}

Status JsonCutter::bracket(char c, const Piece& piece) {
  if (c == '{' || c == '[') {
    if (depth_ == 0 && (c == '[' || over_))
      return fail(Code::kFailed, "the answer is not JSON of an object");
    if (depth_ >= kMaxJsonDepth)
      return fail(Code::kFailed, "the answer is nested deeper than {}", kMaxJsonDepth);
    open_.push_back(c);
    ++depth_;
    if (cut_ == Cut::kItems && !cutting_)
      in_items_ = depth_ == 2 && c == '[' && std::string_view(key_) == kItems;
    return {};
  }
  if (depth_ == 0 || open_.back() != (c == '}' ? '{' : '['))
    return fail(Code::kFailed, "the answer's brackets do not match");
  open_.pop_back();
  --depth_;
  if (cutting_) {
    if (depth_ != piece_depth_) return {};
    cutting_ = false;
    return piece(piece_);
  }
  in_items_ = false;
  over_ = depth_ == 0;
  return {};
}

Result<std::string> JsonCutter::end() {
  if (depth_ != 0 || (cut_ == Cut::kItems && !over_))
    return fail(Code::kFailed, "the answer ends in the middle of an object");
  return std::move(envelope_);
}

}  // namespace gpuslice::kube
