// SPDX-License-Identifier: Apache-2.0
#include "cuda_host/fault_report.h"

#include <signal.h>
#include <unistd.h>

#include <string>

#include "cuda_host/runtime.h"
#include "cuda_host/text.h"
#include "cuda_host/worker.h"

namespace nibble::cuda_host {
namespace {

// Not async-signal-safe (it allocates), which a fault in a kernel or a test can bear: the process
// is lost, and the interrupted code is not the allocator.
void report(int signal_number, siginfo_t* info, void*) {
  std::string who = "host code";
  if (current != nullptr) {
    who = current->worker->launch().kernel + ", block " + text(current->block->index) + ", " +
          text(*current);
  }
  const std::string line = "nibble cuda_host: " + who + " touched " +
                           runtime().memory.describe(info->si_addr) +
                           (current == nullptr ? ", which only kernels and copies may\n" : "\n");
  const auto written = write(STDERR_FILENO, line.data(), line.size());
  static_cast<void>(written);
  signal(signal_number, SIG_DFL);  // the access happens again, and ends the process
}

}  // namespace

void report_faults() {
  static const bool installed = [] {
    struct sigaction action {};
    action.sa_sigaction = report;
    action.sa_flags = SA_SIGINFO;
    return sigaction(SIGSEGV, &action, nullptr) == 0;
  }();
  static_cast<void>(installed);
}

}  // namespace nibble::cuda_host
