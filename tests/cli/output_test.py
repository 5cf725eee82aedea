# SPDX-License-Identifier: Apache-2.0
"""What a run finds where it is to write, what it leaves there, and what it makes of adapters."""
import json
import os
import shutil
import signal
import struct

import harness
import tiny_model

LLAMA_FACTORY_LOG = (
    '{"current_steps": 10, "total_steps": 30, "loss": 1.2, "lr": 0.0001, "epoch": 1.0, '
    '"percentage": 33.3, "elapsed_time": "0:00:10", "remaining_time": "0:00:20", '
    '"throughput": 100.0, "total_tokens": 1000}\n')


def contents(directory):
    """{relative path: bytes}"""
    return {os.path.relpath(os.path.join(top, name), directory):
            harness.read_bytes(os.path.join(top, name))
            for top, _, names in os.walk(directory) for name in names}


class OutputDirectory(harness.Errors):
    def holding(self, name, **files):
        """A directory with these files in it."""
        directory = self.path(name)
        os.mkdir(directory)
        for file_name, content in files.items():
            with open(os.path.join(directory, file_name.replace("__", ".")), "w",
                      encoding="utf-8") as file:
                file.write(content)
        return directory

    def refused(self, output, *needles, extra=()):
        """By the run and, in the same words, by its rehearsal; nothing is changed."""
        before = contents(output) if os.path.isdir(output) else None
        said = []
        for rehearsal in ([], ["--dry-run"]):
            result = self.nibble("finetune", *self.finetune_arguments(output), *extra, *rehearsal)
            self.assert_error(result, output, *needles)
            said.append(result.stderr.splitlines()[-1])
            if before is not None:
                self.assertEqual(contents(output), before)
        self.assertEqual(said[0], said[1])

    def test_taken(self):
        self.refused(self.holding("taken", mine__txt="precious"), "not empty")
        self.refused(self.holding("debris", **{"__mine__tmp-old": "precious"}), "not empty")
        self.refused(self.data, "it is a file")
        self.refused("/dev/null/out")
        self.assert_error(self.nibble("finetune", *self.finetune_arguments("/proc/out")), "/proc/out")

    def test_resuming_elsewhere(self):
        """--resume-from a path writes into a new directory or its own, never into another's."""
        first = self.path("first")
        self.finetune(first, save_steps=1)
        chosen = ["--resume-from", os.path.join(first, "checkpoint-2") + "/"]
        for name, files in [("precious", {"adapter_model__safetensors": "precious"}),
                            ("notes", {"notes__txt": "mine"}),
                            ("log", {"trainer_log__jsonl": LLAMA_FACTORY_LOG})]:
            self.refused(self.holding(name, **files), "checkpoint-2", extra=chosen)
        for output in (self.path("new"), self.holding("empty"), first):
            result = self.nibble("finetune", *self.finetune_arguments(output, save_steps=1), *chosen)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(harness.digest(os.path.join(output, "adapter_model.safetensors")),
                             harness.digest(os.path.join(first, "adapter_model.safetensors")))

    def test_resuming_without_a_checkpoint(self):
        self.refused(self.holding("theirs", trainer_log__jsonl=LLAMA_FACTORY_LOG), "trainer_log",
                     extra=["--resume"])
        self.refused(self.holding("adapter", adapter__gguf="precious"), "adapter.gguf",
                     extra=["--resume"])
        first = self.path("first")
        self.finetune(first, logging_steps=1)
        log = harness.read_bytes(os.path.join(first, "trainer_log.jsonl")).decode()
        lines = log.splitlines(keepends=True)
        self.refused(self.holding("later", trainer_log__jsonl="".join(lines[1:])), "trainer_log",
                     extra=["--resume"])
        # What a kill before the first checkpoint leaves.
        for name, kept in [("none", ""), ("begun", "".join(lines[:2])),
                           ("cut", lines[0] + lines[1][:40])]:
            output = self.holding(name, trainer_log__jsonl=kept)
            result = self.nibble("finetune", *self.finetune_arguments(output, logging_steps=1),
                                 "--resume")
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertEqual(len(harness.read_json_lines(os.path.join(output, "trainer_log.jsonl"))),
                             len(lines))

    def test_one_run_at_a_time(self):
        output = self.path("out")
        run = self.start_long_run(output)
        for extra in ([], ["--resume"], ["--dry-run"]):
            self.assert_error(self.nibble("finetune", *self.finetune_arguments(output), *extra),
                              output, "another run is writing here")
        run.send_signal(signal.SIGINT)
        run.communicate(timeout=60)
        self.assertEqual(run.returncode, 130)

    def test_a_whole_checkpoint_is_never_removed(self):
        output, other = self.path("out"), self.path("other")
        self.finetune(output, save_steps=1)
        self.finetune(other, save_steps=1, learning_rate=0.02)
        chosen = os.path.join(output, "checkpoint-2")
        last = os.path.join(output, "checkpoint-3")
        before = contents(last)
        again = [*self.finetune_arguments(output, save_steps=1), "--resume-from", chosen]
        self.assertEqual(self.nibble("finetune", *again).returncode, 0)
        self.assertEqual(contents(last), before)  # with its times: not written again
        shutil.rmtree(last)
        shutil.copytree(os.path.join(other, "checkpoint-3"), last)
        foreign = contents(last)
        self.assertEqual(self.nibble("finetune", *again).returncode, 0)
        self.assertEqual(contents(last + ".old-1"), foreign)
        self.assertEqual(contents(last)["adapter_model.safetensors"],
                         before["adapter_model.safetensors"])


class Adapters(harness.Errors):
    def setUp(self):
        super().setUp()
        self.adapter = self.path("adapter")
        self.finetune(self.adapter)

    def evaluate(self, model=None, directory=None):
        return self.nibble("eval", "--model", model or self.model, "--adapter",
                           directory or self.adapter, "--dataset", self.held_out, "--cutoff-len", 64)

    def rewrite(self, change):
        """change(name, count) -> the floats of a tensor, None for those it has."""
        path = os.path.join(self.adapter, "adapter_model.safetensors")
        whole = bytearray(harness.read_bytes(path))
        size = struct.unpack("<Q", whole[:8])[0]
        for name, entry in json.loads(whole[8:8 + size]).items():
            if name == "__metadata__":
                continue
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            values = change(name, (end - begin) // 4)
            if values is not None:
                whole[begin:end] = struct.pack("<%df" % len(values), *values)
        with open(path, "wb") as file:
            file.write(whole)

    def test_another_model(self):
        other = self.path("other.gguf")
        tiny_model.write(
            other,
            change_metadata=lambda keys: keys.update({
                "llama.block_count": (tiny_model.U32, struct.pack("<I", 1))}),
            change_tensors=lambda parts: [p for p in parts if not p[0].startswith("blk.1.")])
        self.assertEqual(self.evaluate().returncode, 0)
        self.assert_error(self.evaluate(model=other), self.adapter)
        self.assert_error(self.evaluate(directory=self.path("absent")), "absent")

    def test_damaged(self):
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            path = os.path.join(self.adapter, name)
            whole = harness.read_bytes(path)
            for content in (b"", whole[:len(whole) // 2], b"{}", b"\xff" * 100):
                with self.subTest(name, size=len(content)), open(path, "wb") as file:
                    file.write(content)
                    file.flush()
                    self.assert_error(self.evaluate(), name)
            os.remove(path)
            self.assert_error(self.evaluate(), name)
            with open(path, "wb") as file:
                file.write(whole)

    def test_values_that_are_no_numbers(self):
        victim = "base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight"
        for value in (float("nan"), float("-inf")):
            self.rewrite(lambda name, n: [1.0] * (n - 1) + [value] if name == victim else None)
            self.assert_error(self.evaluate(), self.adapter, victim)
            self.assert_error(self.nibble("generate", "--model", self.model, "--adapter",
                                          self.adapter, "--prompt", "a"), victim)
        # Numbers, but nothing that can be computed with.
        self.rewrite(lambda name, n: [1e38] * n)
        self.assert_error(self.evaluate(), self.adapter, self.held_out, "not finite")

    def test_a_run_that_ends_in_no_numbers(self):
        output = self.path("diverged")
        result = self.nibble("finetune", *self.finetune_arguments(
            output, max_steps=1, warmup_steps=0, learning_rate=3e38))
        self.assert_error(result, output, "not finite", output=output)


if __name__ == "__main__":
    harness.main()
