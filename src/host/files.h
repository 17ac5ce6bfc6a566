#pragma once

// Files as the agent needs them: read with a bound, written so that a crash at any moment leaves
// the old or the new content, never a mixture. Stateless; any thread.

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace gpuslice::host {

// The content of `path`. kNotFound when there is no such file, kNoPermission when it may not be
// read, kInvalidConfig when it is longer than `max_bytes` or no regular file, kFailed otherwise.
[[nodiscard]] Result<std::string> read_file(const std::string& path, size_t max_bytes);

// Writes `content` to `path`: a temporary file beside it, then rename; when `durable` also fsync of
// the file before and of the folder after. Missing folders are made with mode 0755. On failure the
// old content stays and the temporary file is removed. kNoPermission or kFailed (no space,
// read-only).
[[nodiscard]] Status write_file_atomically(const std::string& path, std::string_view content,
                                           bool durable);

// Removes `path`; that it is not there is no failure.
[[nodiscard]] Status remove_file(const std::string& path);

// What was written or removed in the folder of `path` is on disk when it returns.
[[nodiscard]] Status sync_folder_of(const std::string& path);

// The names in `folder`, sorted, without "." and ".."; empty where there is no such folder.
[[nodiscard]] Result<std::vector<std::string>> list_folder(const std::string& folder);

// mkdir -p with mode 0755.
[[nodiscard]] Status make_folders(const std::string& path);

// errno as a Code: ENOENT and ENOTDIR → kNotFound, EACCES, EPERM and EROFS → kNoPermission, else
// kFailed.
[[nodiscard]] Code code_of_errno(int error);

}  // namespace gpuslice::host
