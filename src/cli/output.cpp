#include "cli/output.h"

#include <poll.h>
#include <unistd.h>

#include <cerrno>

#include "base/files.h"

namespace triptych {

void print_output(std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {  // a parent made the pipe non-blocking
      pollfd out{STDOUT_FILENO, POLLOUT, 0};
      ::poll(&out, 1, -1);
      continue;
    }
    if (n < 0 && errno == EPIPE) throw OutputClosed();
    if (n < 0) fail_errno("standard output", "cannot be written");
    text.remove_prefix(static_cast<size_t>(n));
  }
}

}  // namespace triptych
