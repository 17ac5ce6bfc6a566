#pragma once

// Result<T>: a value or an Error. Status: nothing or an Error. No exceptions cross a folder.
//
//   Result<Board> board = board_by_name(name);
//   if (!board) return std::unexpected(board.error());
//
// TRY_ASSIGN / TRY spell that once:
//   TRY_ASSIGN(Board board, board_by_name(name));
//   TRY(world.settle());

#include <fmt/core.h>

#include <expected>
#include <string>
#include <utility>

#include "base/error.h"

namespace gpuslice {

template <class T>
using Result = std::expected<T, Error>;

using Status = std::expected<void, Error>;

// fail(Code::kNotFound, "GPU {}: no such GPU; this node has {}", index, count)
template <class... Args>
[[nodiscard]] std::unexpected<Error> fail(Code code, fmt::format_string<Args...> text,
                                          Args&&... args) {
  return std::unexpected(Error{code, fmt::format(text, std::forward<Args>(args)...), {}});
}

#define GPUSLICE_CONCAT_INNER(a, b) a##b
#define GPUSLICE_CONCAT(a, b) GPUSLICE_CONCAT_INNER(a, b)
#define TRY_ASSIGN_INNER(tmp, lhs, expr)                    \
  auto tmp = (expr);                                        \
  if (!tmp) return std::unexpected(std::move(tmp).error()); \
  lhs = std::move(*tmp)
#define TRY_ASSIGN(lhs, expr) TRY_ASSIGN_INNER(GPUSLICE_CONCAT(try_result_, __LINE__), lhs, expr)
#define TRY(expr)                                            \
  do {                                                       \
    if (auto try_status = (expr); !try_status)               \
      return std::unexpected(std::move(try_status).error()); \
  } while (false)

}  // namespace gpuslice
