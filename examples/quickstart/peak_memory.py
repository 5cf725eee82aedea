#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a command and says, after it, the peak of its resident memory as the kernel counted it."""
import resource
import signal
import subprocess
import sys

child = None


def forward(number, _):
    """Ctrl-C reaches the command by itself: it alone decides how to end. A kill or a hang-up of this
    process is passed on."""
    if child is None:
        sys.exit(128 + number)
    if number != signal.SIGINT:
        child.send_signal(number)


# Handlers, not SIG_IGN: the command would inherit that. What is ignored already (nohup) stays so.
for signal_number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    if signal.getsignal(signal_number) != signal.SIG_IGN:
        signal.signal(signal_number, forward)
child = subprocess.Popen(sys.argv[1:])
status = child.wait()
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print("Peak resident memory: %.0f MiB" % peak, flush=True)
# A signal's number is not an exit status; shells write it as 128 + n.
sys.exit(status if status >= 0 else 128 - status)
