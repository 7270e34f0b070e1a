#include "runtime/trace_file.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cerrno>
#include <stdexcept>
#include <system_error>
#include <utility>

#include "runtime/open_file.hpp"

namespace ostler::runtime {

void TraceFile::open(std::string path) {
  OpenedFile opened = open_own_file(path);
  if (!opened.fd) throw std::runtime_error("open " + path + ": " + opened.problem);
  // Not by O_TRUNC: only now it is known whose file it is.
  if (::ftruncate(opened.fd.get(), 0) != 0) {
    const std::string reason = std::generic_category().message(errno);
    throw std::runtime_error("truncate " + path + ": " + reason);
  }
  path_ = std::move(path);
  file_ = std::move(opened.fd);
}

void TraceFile::record(const std::string& line) {
  if (!file_) return;
  const int error = write_whole(file_.get(), line);
  if (error == 0) return;
  file_.reset();
  spdlog::error("the trace has ended: write {}: {}", path_, std::generic_category().message(error));
}

}  // namespace ostler::runtime
