# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command share. A test is a script that is given the command's path;
unittest runs it, and exit code 77 means that all of it was skipped."""
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

import tiny_model

NIBBLE = ""
WORDS = "stone river cloud lamp bread music winter garden copper ladder thunder paper".split()


def rows(count, first=0):
    """Chat rows that differ in length and content."""
    for i in range(first, first + count):
        word = WORDS[i % len(WORDS)]
        yield {"messages": [{"role": "user", "content": "Define %s %d" % (word, i)},
                            {"role": "assistant", "content": "a thing " * (i % 4 + 1) + word}]}


def write_rows(path, lines):
    with open(path, "w", encoding="utf-8") as file:
        for line in lines:
            file.write((line if isinstance(line, str) else json.dumps(line)) + "\n")
    return path


def read_json_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def digest(path):
    """Of a file, for messages that can be read."""
    return hashlib.sha256(read_bytes(path)).hexdigest()


def read_bytes(path):
    with open(path, "rb") as file:
        return file.read()


class Workplace(unittest.TestCase):
    """A directory with a tiny model, train.jsonl and eval.jsonl in it."""

    def setUp(self):
        self.dir = tempfile.mkdtemp(prefix="nibble-cli-")
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)
        self.model = self.path("tiny.gguf")
        tiny_model.write(self.model)
        self.data = write_rows(self.path("train.jsonl"), rows(24))
        self.held_out = write_rows(self.path("eval.jsonl"), rows(6, 100))

    def path(self, *names):
        return os.path.join(self.dir, *names)

    def nibble(self, *arguments, prefix=(), **more):
        """Runs the command; never raises for its exit code."""
        return subprocess.run([*prefix, NIBBLE, *map(str, arguments)], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, text=True, errors="replace", timeout=120,
                              **more)

    def finetune_arguments(self, output, **changes):
        """Settings of a short run; changes={"lora_r": 4, "packing": None}: None leaves one out."""
        settings = {"model": self.model, "dataset": self.data, "output_dir": output,
                    "cutoff_len": 128, "lora_r": 4, "learning_rate": 0.01, "max_steps": 3,
                    "gradient_accumulation_steps": 2, "compute_dtype": "fp32", "threads": 1}
        settings.update(changes)
        for name, value in settings.items():
            if value is not None:
                yield "--%s=%s" % (name.replace("_", "-"), value)

    def start_long_run(self, output, *extra, prefix=(), **more):
        """A run that would go on for minutes, once it has done two steps."""
        arguments = self.finetune_arguments(output, max_steps=100000, save_steps=0, logging_steps=1)
        run = subprocess.Popen([*prefix, NIBBLE, "finetune", *arguments, *extra],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               start_new_session=True, **more)
        self.addCleanup(self.kill_group, run)
        for line in run.stderr:
            if line.startswith("step 2/"):
                break
        return run

    def kill_group(self, run):
        """With what it started, should a test have failed."""
        try:
            os.killpg(run.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        run.communicate()

    def finetune(self, output, **changes):
        result = self.nibble("finetune", *self.finetune_arguments(output, **changes))
        self.assertEqual(result.returncode, 0, result.stderr)
        return result


class Errors(Workplace):
    def assert_error(self, result, *needles, output=None):
        """One line on standard error that contains the needles; no output, whole or in part."""
        shown = "exit code %d\n%s" % (result.returncode, result.stderr)
        self.assertIn(result.returncode, range(1, 126), shown)
        lines = [x for x in result.stderr.splitlines() if x.startswith("nibble: ")]
        self.assertEqual(len(lines), 1, shown)
        self.assertEqual(lines[0], result.stderr.splitlines()[-1], shown)
        self.assertLess(len(lines[0]), 600, shown)
        self.assertNotIn("internal error", lines[0])
        self.assertNotRegex(lines[0], r"\d{30}")  # a range of all doubles
        for needle in needles:
            self.assertIn(str(needle), lines[0])
        if output and os.path.isdir(output):
            left = [n for n in os.listdir(output) if n != "trainer_log.jsonl"]
            self.assertEqual(left, [], shown)

    def failing_finetune(self, *needles, settings=None, extra=(), **more):
        self.tries = getattr(self, "tries", 0) + 1
        output = self.path("out-%d" % self.tries)
        arguments = self.finetune_arguments(output, **(settings or {}))
        result = self.nibble("finetune", *arguments, *extra, **more)
        self.assert_error(result, *needles, output=output)


def main():
    global NIBBLE
    NIBBLE = os.path.abspath(sys.argv.pop(1))
    outcome = unittest.main(module="__main__", exit=False, verbosity=2).result
    if not outcome.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if outcome.testsRun == len(outcome.skipped) else 0)
