#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Runs a command and says, after it, the peak of its resident memory as the kernel counted it."""
import resource
import subprocess
import sys

status = subprocess.run(sys.argv[1:]).returncode
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
print("Peak resident memory: %.0f MiB" % peak, flush=True)
# A signal's number is not an exit status; shells write it as 128 + n.
sys.exit(status if status >= 0 else 128 - status)
