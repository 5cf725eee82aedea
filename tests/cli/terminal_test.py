# SPDX-License-Identifier: Apache-2.0
"""Signals and terminals: a run that is stopped from outside leaves a checkpoint, the quickstart's
scripts do not stand in its way, and the live line fits."""
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios

import harness

QUICKSTART = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples",
                          "quickstart")
WRAPPER = [sys.executable, "-B", os.path.join(QUICKSTART, "peak_memory.py")]


class Signals(harness.Workplace):
    def assert_saved(self, run, output):
        printed, errors = run.communicate(timeout=60)
        self.assertEqual(run.returncode, 130, errors)
        self.assertTrue([n for n in os.listdir(output) if n.startswith("checkpoint-")])
        self.assertIn("--resume", printed)
        return printed

    def test_every_signal_that_ends_a_run(self):
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            with self.subTest(number.name):
                output = self.path(number.name)
                run = self.start_long_run(output)
                run.send_signal(number)
                self.assert_saved(run, output)

    def test_nohup(self):
        output = self.path("out")
        run = self.start_long_run(
            output, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
        run.send_signal(signal.SIGHUP)
        steps = sum(run.stderr.readline().startswith("step ") for _ in range(3))
        self.assertEqual(steps, 3)
        run.send_signal(signal.SIGTERM)
        self.assert_saved(run, output)

    def test_through_the_wrapper(self):
        # Ctrl-C goes to everybody in the foreground; a kill to the wrapper alone.
        for name, send in [("ctrl-c", lambda run: os.killpg(run.pid, signal.SIGINT)),
                           ("kill", lambda run: run.send_signal(signal.SIGTERM)),
                           ("hang-up", lambda run: run.send_signal(signal.SIGHUP))]:
            with self.subTest(name):
                output = self.path(name)
                run = self.start_long_run(output, prefix=WRAPPER)
                send(run)
                self.assertIn("Peak resident memory", self.assert_saved(run, output))

    def test_wrapper_passes_on_how_it_ended(self):
        for command, code in [("exit 7", 7), ("kill -KILL $$", 137)]:
            result = subprocess.run([*WRAPPER, "sh", "-c", command], stdout=subprocess.PIPE)
            self.assertEqual(result.returncode, code)

    def test_quickstart_takes_its_place_from_the_caller(self):
        taken = self.path("mine")
        os.mkdir(taken)
        with open(os.path.join(taken, "notes.txt"), "w", encoding="utf-8") as file:
            file.write("precious")
        result = subprocess.run([os.path.join(QUICKSTART, "run.sh"), "--no-install", "--out", "mine"],
                                cwd=self.dir, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                text=True, timeout=60)
        self.assertEqual(result.returncode, 1)
        self.assertIn(taken, result.stderr)


class Terminal(harness.Workplace):
    def live_lines(self, columns):
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        run = subprocess.Popen(
            [harness.NIBBLE, "finetune",
             *self.finetune_arguments(self.path("out-%d" % columns), max_steps=12)],
            stdout=subprocess.DEVNULL, stderr=theirs)
        os.close(theirs)
        said = b""
        while True:
            try:
                part = os.read(ours, 65536)
            except OSError:  # the other end is closed
                break
            if not part:
                break
            said += part
        os.close(ours)
        self.assertEqual(run.wait(), 0, said)
        return [line for line in re.split(r"[\r\n]+", said.decode()) if re.match(r"step \d+/", line)]

    def test_the_live_line_fits(self):
        wide, narrow = self.live_lines(80), self.live_lines(30)
        self.assertEqual([len(wide), len(narrow)], [12, 12])
        for line in wide:
            self.assertLessEqual(len(line), 80)
            self.assertRegex(line.rstrip(), r"^step \d+/12 \| loss [\d.]+ \| .* \| ETA \d+:\d\d:\d\d$")
        for line in narrow:
            self.assertLessEqual(len(line), 30)


if __name__ == "__main__":
    harness.main()
