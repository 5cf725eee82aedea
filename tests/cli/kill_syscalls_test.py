# SPDX-License-Identifier: Apache-2.0
"""Killed at every system call that a checkpoint's save makes, a run leaves the old or the new
checkpoint whole, and goes on to the very same adapter."""
import collections
import concurrent.futures
import os
import re
import shutil
import subprocess
import unittest

import harness

CALLS = ("openat", "mkdir", "mkdirat", "write", "pwrite64", "writev", "fsync", "fdatasync",
         "ftruncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat", "unlink",
         "unlinkat", "rmdir", "flock", "fcntl", "close")
RESULT = "adapter_model.safetensors"


class KillEverywhere(harness.Workplace):
    def setUp(self):
        super().setUp()
        if shutil.which("strace") is None:
            self.skipTest("there is no strace")
        probe = subprocess.run(["strace", "-qq", "-o", "/dev/null", "-e", "trace=close", "-e",
                                "inject=close:signal=KILL:when=1", "cat", "/dev/null"],
                               stderr=subprocess.DEVNULL)
        if probe.returncode != -9:
            self.skipTest("this machine does not permit strace (ptrace)")

    def arguments(self, output):
        return [harness.NIBBLE, "finetune", *self.finetune_arguments(
            output, max_steps=2, save_steps=1, save_total_limit=1, logging_steps=1,
            optim="adamw_8bit", lora_r=64, lora_target="q_proj")]

    def traced_calls(self):
        """(call, its number among calls of its name, line, whether checkpoint-1 is whole before it),
        from the first checkpoint on."""
        log = self.path("strace.log")
        result = subprocess.run(["strace", "-f", "-qq", "-o", log, "-e", "trace=" + ",".join(CALLS),
                                 *self.arguments(self.path("traced"))], stderr=subprocess.PIPE,
                                text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.split(None, 1) for line in file]
        main = lines[0][0]  # strace counts every thread's calls apart; the main thread saves
        numbers, found, begun, whole = collections.Counter(), [], False, False
        for thread, text in lines:
            match = re.match(r"(\w+)\(", text)
            if thread != main or not match:
                continue
            call = match.group(1)
            numbers[call] += 1
            begun = begun or "checkpoint-1" in text
            if begun:
                found.append((call, numbers[call], text.strip(), whole))
                whole = whole or (call.startswith("rename") and "/checkpoint-1\"" in text)
        return found

    def kill_at(self, call, number, had_checkpoint, expected):
        """What is wrong after a kill there; None if nothing."""
        output = self.path("%s-%d" % (call, number))
        killed = subprocess.run(
            ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + call, "-e",
             "inject=%s:signal=KILL:when=%d" % (call, number), *self.arguments(output)],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        names = sorted(os.listdir(output)) if os.path.isdir(output) else []
        saved = [n for n in names if n.startswith("checkpoint-")]
        resumed = subprocess.run([*self.arguments(output), "--resume"], stdout=subprocess.DEVNULL,
                                 stderr=subprocess.PIPE, text=True)
        problems = []
        if killed.returncode != -9:
            problems.append("was not killed (%d)" % killed.returncode)
        if resumed.returncode != 0 or "warning" in resumed.stderr:
            problems.append("resume: %s" % resumed.stderr.strip())
        elif saved and "resumed after step" not in resumed.stderr:
            problems.append("%s were there and not used" % saved)
        elif harness.digest(os.path.join(output, RESULT)) != expected:
            problems.append("another adapter")
        left = [n for n in os.listdir(output) if n.startswith(".") or ".tmp" in n]
        if left:
            problems.append("left over: %s" % left)
        if had_checkpoint and not saved:
            problems.append("the old checkpoint is gone")
        shutil.rmtree(output)
        return problems, bool(saved)

    def test_every_call_of_a_save(self):
        calls = self.traced_calls()
        self.assertGreater(len(calls), 30)
        expected = harness.digest(self.path("traced", RESULT))
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            outcomes = list(pool.map(lambda c: self.kill_at(c[0], c[1], c[3], expected), calls))
        wrong = ["%s number %d (%s): %s" % (*call[:3], "; ".join(problems))
                 for call, (problems, _) in zip(calls, outcomes) if problems]
        self.assertFalse(wrong, "\n".join(wrong))
        with_checkpoint = sum(saved for _, saved in outcomes)
        print("killed at %d calls; at %d of them a checkpoint was there" %
              (len(calls), with_checkpoint))
        self.assertGreater(with_checkpoint, len(calls) // 3)
        self.assertLess(with_checkpoint, len(calls))


if __name__ == "__main__":
    harness.main()
