#include "host/files.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "base/unique_fd.h"

namespace gpuslice::host {
namespace {

std::string folder_of(const std::string& path) {
  const size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

std::unexpected<Error> failed(const std::string& path, const char* action, int error) {
  return fail(code_of_errno(error), "{}: {}: {}", path, action, std::strerror(error));
}

Status write_all(int fd, const std::string& path, std::string_view content, bool durable) {
  while (!content.empty()) {
    const ssize_t put = ::write(fd, content.data(), content.size());
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) return failed(path, "cannot be written", errno);
    content.remove_prefix(static_cast<size_t>(put));
  }
  if (durable && ::fsync(fd) != 0) return failed(path, "cannot be written to disk", errno);
  return {};
}

}  // namespace

Code code_of_errno(int error) {
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return Code::kNotFound;
    case EACCES:
    case EPERM:
    case EROFS:
      return Code::kNoPermission;
    default:
      return Code::kFailed;
  }
}

Result<std::string> read_file(const std::string& path, size_t max_bytes) {
  // Non-blocking, so that a FIFO put there by mistake cannot hang the agent.
  const UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd.valid()) return failed(path, "cannot be read", errno);
  struct stat info{};
  if (::fstat(fd.get(), &info) != 0) return failed(path, "cannot be read", errno);
  if (!S_ISREG(info.st_mode)) {
    return fail(Code::kInvalidConfig, "{}: cannot be read: it is not a regular file", path);
  }
  std::string content;
  content.resize(info.st_size > 0 && static_cast<size_t>(info.st_size) < max_bytes
                     ? static_cast<size_t>(info.st_size) + 1
                     : max_bytes + 1);
  size_t length = 0;
  while (true) {
    // Files of /proc and /sys say size 0 and are longer: read to the end whatever stat said.
    if (length == content.size()) {
      if (length > max_bytes) {
        return fail(Code::kInvalidConfig, "{}: cannot be read: it is longer than {} bytes", path,
                    max_bytes);
      }
      content.resize(max_bytes + 1);
    }
    const ssize_t got = ::read(fd.get(), content.data() + length, content.size() - length);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return failed(path, "cannot be read", errno);
    if (got == 0) break;
    length += static_cast<size_t>(got);
  }
  content.resize(length);
  return content;
}

Status make_folders(const std::string& path) {
  if (path.empty() || path == "/") return {};
  if (::mkdir(path.c_str(), 0755) == 0) return {};
  if (errno == ENOENT) {
    TRY(make_folders(folder_of(path)));
    if (::mkdir(path.c_str(), 0755) == 0) return {};
  }
  if (errno == EEXIST) {
    struct stat info{};
    if (::stat(path.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) return {};
    return fail(Code::kFailed, "{}: cannot be made a folder: something else stands there", path);
  }
  return failed(path, "folder cannot be made", errno);
}

Status write_file_atomically(const std::string& path, std::string_view content, bool durable) {
  const std::string folder = folder_of(path);
  TRY(make_folders(folder));
  const std::string temporary = path + ".tmp." + std::to_string(::getpid());
  {
    const UniqueFd fd(
        ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644));
    if (!fd.valid()) return failed(temporary, "cannot be made", errno);
    if (Status written = write_all(fd.get(), temporary, content, durable); !written) {
      ::unlink(temporary.c_str());
      return written;
    }
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return failed(path, "cannot be replaced", error);
  }
  return durable ? sync_folder_of(path) : Status();
}

Status sync_folder_of(const std::string& path) {
  const std::string folder = folder_of(path);
  const UniqueFd fd(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.valid() || ::fsync(fd.get()) != 0) {
    return failed(folder, "cannot be written to disk", errno);
  }
  return {};
}

Result<std::vector<std::string>> list_folder(const std::string& folder) {
  std::vector<std::string> names;
  DIR* const dir = ::opendir(folder.c_str());
  if (dir == nullptr) {
    if (errno == ENOENT) return names;
    return failed(folder, "cannot be listed", errno);
  }
  while (const dirent* entry = ::readdir(dir)) {
    const std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(name);
  }
  ::closedir(dir);
  std::sort(names.begin(), names.end());
  return names;
}

Status remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return failed(path, "cannot be removed", errno);
  }
  return {};
}

}  // namespace gpuslice::host
