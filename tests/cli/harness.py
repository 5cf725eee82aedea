# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command share. A test is a script that is given the command's path;
unittest runs it, and exit code 77 means that all of it was skipped."""
import hashlib
import json
import os
import shutil
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

    def finetune(self, output, **changes):
        result = self.nibble("finetune", *self.finetune_arguments(output, **changes))
        self.assertEqual(result.returncode, 0, result.stderr)
        return result


def main():
    global NIBBLE
    NIBBLE = os.path.abspath(sys.argv.pop(1))
    outcome = unittest.main(module="__main__", exit=False, verbosity=2).result
    if not outcome.wasSuccessful():
        sys.exit(1)
    sys.exit(77 if outcome.testsRun == len(outcome.skipped) else 0)
