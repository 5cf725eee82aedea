# SPDX-License-Identifier: Apache-2.0
"""What goes wrong ends in one clear line that names the file, an exit code from 1 to 125, and
nothing half-written."""
import json
import os
import random
import resource
import struct
import subprocess
import unittest

import harness
import tiny_model

U32, F32, STRING, ARRAY, U8 = 4, 6, 8, 9, 0


def number(value):
    return (U32, struct.pack("<I", value))


def limit(kind, size):
    """For subprocess: a resource limit of the child."""
    return lambda: resource.setrlimit(kind, (size, size))


class Errors(harness.Workplace):
    def assert_error(self, result, *needles, output=None):
        """One line on standard error that contains the needles; no output, whole or in part."""
        shown = "exit code %d\n%s" % (result.returncode, result.stderr)
        self.assertIn(result.returncode, range(1, 126), shown)
        lines = [x for x in result.stderr.splitlines() if x.startswith("nibble: ")]
        self.assertEqual(len(lines), 1, shown)
        self.assertEqual(lines[0], result.stderr.splitlines()[-1], shown)
        self.assertLess(len(lines[0]), 600, shown)
        self.assertNotIn("internal error", lines[0])
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

    def bad_model(self, name, *needles, **changes):
        """A model that is wrong on purpose is refused by every command that reads models."""
        path = self.path(name + ".gguf")
        tiny_model.write(path, **changes)
        with self.subTest(name):
            self.assert_error(self.nibble("eval", "--model", path, "--dataset", self.data,
                                          "--cutoff-len", 64), path, *needles)
            self.failing_finetune(path, *needles, settings={"model": path})


class Models(Errors):
    def edit(self, key, value):
        return lambda keys: keys.__setitem__(key, value)

    def test_metadata(self):
        for key, value in [
                ("general.architecture", (STRING, tiny_model.text("mamba"))),
                ("llama.block_count", number(0)),
                ("llama.block_count", number(600)),
                ("llama.block_count", (F32, struct.pack("<f", 2))),
                ("llama.embedding_length", number(2 ** 31)),
                ("llama.attention.head_count", number(3)),
                ("llama.attention.head_count_kv", number(3)),
                ("llama.rope.dimension_count", number(6)),
                ("llama.rope.freq_base", (F32, struct.pack("<f", float("nan")))),
                ("llama.attention.layer_norm_rms_epsilon", (F32, struct.pack("<f", 0))),
                ("llama.rope.scaling.type", (STRING, tiny_model.text("yarn"))),
                ("tokenizer.ggml.model", (STRING, tiny_model.text("llama"))),
                ("tokenizer.ggml.pre", (STRING, tiny_model.text("llama-bpe"))),
                ("tokenizer.ggml.token_type", (ARRAY, struct.pack("<IQ3B", U8, 3, 1, 1, 1))),
                ("tokenizer.ggml.merges", (ARRAY, tiny_model.strings(["nonsense"]))),
                ("tokenizer.ggml.tokens", (ARRAY, struct.pack("<IQ", STRING, 2 ** 63))),
                ("tokenizer.ggml.eos_token_id", number(70000)),
                ("general.alignment", number(13))]:
            self.bad_model("%s-%s" % (key, value[1][:8].hex()), key if "alignment" not in key else "",
                           change_metadata=self.edit(key, value))

    def test_missing_key(self):
        for key in ("general.architecture", "llama.block_count", "llama.embedding_length",
                    "llama.attention.layer_norm_rms_epsilon", "tokenizer.ggml.tokens",
                    "tokenizer.ggml.merges"):
            self.bad_model("without-" + key, key, change_metadata=lambda keys, k=key: keys.pop(k))

    def test_tensors(self):
        victim = "blk.1.attn_k.weight"

        def replaced(**fields):
            def change(parts):
                for i, (name, dims, kind, content) in enumerate(parts):
                    if name == victim:
                        old = {"name": name, "dims": dims, "kind": kind, "content": content}
                        parts[i] = tuple({**old, **fields}.values())
                return parts
            return change

        for name, fields in [
                ("missing", {"name": "blk.1.other.weight"}),
                ("duplicate", {"name": "blk.1.attn_v.weight"}),
                ("transposed", {"dims": (32, 64)}),
                ("zero", {"dims": (0, 32)}),
                ("wrapping", {"dims": (2 ** 32, 2 ** 32)}),
                ("negative", {"dims": (2 ** 63, 2)}),
                ("unknown-type", {"kind": 99}),
                ("unsupported-type", {"kind": 12}),
                ("five-dims", {"dims": (64, 32, 1, 1, 1)}),
                ("rope-factors", {"name": "rope_freqs.weight"})]:
            self.bad_model("tensor-" + name, change_tensors=replaced(**fields))

    def test_not_a_model(self):
        whole = harness.read_bytes(self.model)
        for name, content in [("empty", b""), ("short", whole[:3]), ("magic", b"GGML" + whole[4:]),
                              ("version", whole[:4] + struct.pack("<I", 2) + whole[8:]),
                              ("tensors", whole[:8] + struct.pack("<Q", 2 ** 63) + whole[16:]),
                              ("keys", whole[:16] + struct.pack("<Q", 2 ** 64 - 1) + whole[24:]),
                              ("text", b"hello, world\n" * 1000), ("half", whole[:len(whole) // 2]),
                              ("one-byte-less", whole[:-40])]:
            path = self.path(name + ".gguf")
            with open(path, "wb") as file:
                file.write(content)
            with self.subTest(name):
                self.assert_error(self.nibble("inspect", path), path)
                self.failing_finetune(path, settings={"model": path})
        for path in (self.path("absent.gguf"), self.dir, "/dev/zero"):
            with self.subTest(path):
                self.assert_error(self.nibble("inspect", path), path)
                self.failing_finetune(path, settings={"model": path})

    def test_fifo_does_not_hang(self):
        path = self.path("fifo.gguf")
        os.mkfifo(path)
        self.assert_error(self.nibble("inspect", path), path)

    def test_truncated_anywhere(self):
        whole, rng = harness.read_bytes(self.model), random.Random(5)
        path = self.path("cut.gguf")
        for size in sorted(rng.randrange(len(whole) - 32) for _ in range(60)):
            with open(path, "wb") as file:
                file.write(whole[:size])
            with self.subTest(size=size):
                self.assert_error(self.nibble("inspect", path), path)

    def test_damaged_anywhere(self):
        """Flipped bits may make another valid file; they never make a crash."""
        whole, rng = harness.read_bytes(self.model), random.Random(6)
        path = self.path("damaged.gguf")
        for _ in range(60):
            content = bytearray(whole)
            for _ in range(rng.choice((1, 1, 4))):
                content[rng.randrange(9000)] ^= 1 << rng.randrange(8)
            with open(path, "wb") as file:
                file.write(content)
            result = self.nibble("eval", "--model", path, "--dataset", self.held_out,
                                 "--cutoff-len", 64, "--json")
            if result.returncode:
                self.assert_error(result)


class Data(Errors):
    def bad_data(self, name, lines, *needles, **settings):
        path = harness.write_rows(self.path(name + ".jsonl"), lines)
        with self.subTest(name):
            self.failing_finetune(path, *needles, settings={"dataset": path, **settings})

    def test_rows(self):
        good = list(harness.rows(2))
        message = {"role": "user", "content": "hi"}
        for name, bad, *needles in [
                ("cut", '{"messages": [', "line 3"), ("not-json", "hello", "line 3"),
                ("array", "[1, 2]", "line 3"), ("number", "7", "line 3"),
                ("other-keys", {"question": "a"}, "line 3"),
                ("other-format", {"prompt": "a", "completion": "b"}, "line 3"),
                ("no-role", {"messages": [{"content": "a"}]}, "line 3"),
                ("no-content", {"messages": [{"role": "user"}]}, "line 3"),
                ("content-number", {"messages": [{"role": "user", "content": 5}]}, "line 3"),
                ("messages-string", {"messages": "hello"}, "line 3"),
                ("role-number", {"messages": [{"role": 1, "content": "a"}]}, "line 3"),
                ("twice", '{"messages": [], "messages": []}', "line 3"),
                ("deep", "[" * 100000, "line 3"),
                ("nan", '{"messages": NaN}', "line 3"),
                ("surrogate", '{"messages": [{"role": "user", "content": "\\ud800"}]}', "line 3"),
                ("trailing", json.dumps({"messages": [message]}) + " x", "line 3")]:
            self.bad_data(name, [*good, bad], *needles)

    def test_not_utf8(self):
        path = self.path("bytes.jsonl")
        with open(path, "wb") as file:
            file.write(b'{"text": "ok"}\n{"text": "\xff\xfe"}\n')
        self.failing_finetune(path, "line 2", settings={"dataset": path})

    def test_token_ids(self):
        for name, row in [("range", {"input_ids": [1, 2, 99999], "labels": [1, 2, 3]}),
                          ("negative", {"input_ids": [1, -2], "labels": [1, 2]}),
                          ("lengths", {"input_ids": [1, 2, 3], "labels": [1]}),
                          ("label", {"input_ids": [1, 2], "labels": [1, -7]}),
                          ("fraction", {"input_ids": [1.5, 2], "labels": [1, 2]}),
                          ("huge", {"input_ids": [2 ** 70, 2], "labels": [1, 2]})]:
            self.bad_data("ids-" + name, [row], "line 1")

    def test_no_usable_row(self):
        only_prompts = [{"messages": [{"role": "user", "content": "a"}]}] * 3
        self.bad_data("no-target", only_prompts)
        self.bad_data("blank", ["", ""])
        path = self.path("empty.jsonl")
        open(path, "w").close()
        self.failing_finetune(path, settings={"dataset": path})
        # Every answer lies behind the cut.
        long = [{"messages": [{"role": "user", "content": "word " * 50},
                              {"role": "assistant", "content": "yes"}]}]
        self.bad_data("cut-off", long, cutoff_len=16)

    def test_files(self):
        for path in (self.path("absent.jsonl"), self.dir, self.model):
            with self.subTest(path):
                self.failing_finetune(path, settings={"dataset": path})
                self.failing_finetune(path, settings={"eval_dataset": path})

    def test_longer_than_the_context(self):
        self.failing_finetune("cutoff-len", "256", self.model, settings={"cutoff_len": 100000})
        result = self.nibble("generate", "--model", self.model, "--prompt", "word " * 500)
        self.assert_error(result, "256", self.model)


class Settings(Errors):
    def test_values(self):
        for name, value in [
                ("learning_rate", "nan"), ("learning_rate", "-1"), ("learning_rate", "fast"),
                ("lora_r", 0), ("lora_r", -4), ("lora_r", 10 ** 12), ("lora_alpha", "-1"),
                ("lora_dropout", 1), ("lora_dropout", -0.5), ("lora_target", "q_prj"),
                ("lr_scheduler_type", "cosin"), ("optim", "sgdd"), ("compute_dtype", "fp16"),
                ("warmup_ratio", 2), ("max_grad_norm", -1), ("weight_decay", -1),
                ("adam_beta1", 1), ("adam_beta2", 1.5), ("adam_epsilon", -1),
                ("micro_batch_size", 0), ("gradient_accumulation_steps", 0), ("cutoff_len", 1),
                ("num_train_epochs", 0), ("val_size", -1), ("val_size", 1000), ("seed", "-1"),
                ("threads", -1), ("isa", "sse9"), ("chat_template", "llama9"),
                ("logging_steps", -1), ("eval_steps", -1), ("save_steps", -1),
                ("save_total_limit", 0), ("max_samples", 0)]:
            with self.subTest(name, value=value):
                changes = {name: value}
                if name == "num_train_epochs":
                    changes["max_steps"] = None
                self.failing_finetune(settings=changes)

    def test_unknown_flag(self):
        self.failing_finetune("--learnin-rate", extra=["--learnin-rate=1"])
        self.failing_finetune("--rank-of-lora", extra=["--rank_of_lora", "4"])
        self.failing_finetune("stray", extra=["stray"])
        self.assert_error(self.nibble("finetun"))
        self.assert_error(self.nibble())

    def test_missing_flag(self):
        self.failing_finetune("--model", settings={"model": None})
        self.failing_finetune("--dataset", settings={"dataset": None})
        self.assert_error(self.nibble("finetune", *self.finetune_arguments(None)), "--output-dir")

    def test_yaml(self):
        for name, content, *needles in [
                ("unknown", "lora_r: 4\nlora_rnk: 8\n", "line 2", "lora_rnk"),
                ("syntax", "lora_r: [4\n"), ("list", "- 4\n"), ("nested", "lora_dropout: {a: 4}\n"),
                ("type", "save_steps: often\n"), ("config", "config: other.yaml\n")]:
            path = self.path(name + ".yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
            with self.subTest(name):
                files = () if name == "type" else (path,)
                self.failing_finetune(*files, *needles, extra=["--config", path])
        self.failing_finetune("absent.yaml", extra=["--config", self.path("absent.yaml")])

    def test_bf16_without_hardware(self):
        self.failing_finetune("bf16", settings={"compute_dtype": "bf16", "isa": "avx2"})

    def test_output_directory(self):
        taken = self.path("taken")
        os.mkdir(taken)
        with open(os.path.join(taken, "mine.txt"), "w", encoding="utf-8") as file:
            file.write("precious")
        result = self.nibble("finetune", *self.finetune_arguments(taken))
        self.assert_error(result, taken, "not empty")
        self.assertEqual(os.listdir(taken), ["mine.txt"])
        for path in (self.data, "/dev/null/out", "/proc/out"):
            self.assert_error(self.nibble("finetune", *self.finetune_arguments(path)), path)

    def test_adapter(self):
        adapter = self.path("adapter")
        self.finetune(adapter)
        other = self.path("other.gguf")
        tiny_model.write(
            other, change_metadata=lambda keys: keys.update({"llama.block_count": number(1)}),
            change_tensors=lambda parts: [p for p in parts if not p[0].startswith("blk.1.")])

        def evaluate(model=self.model, directory=adapter):
            return self.nibble("eval", "--model", model, "--adapter", directory, "--dataset",
                               self.held_out, "--cutoff-len", 64)

        self.assertEqual(evaluate().returncode, 0)
        self.assert_error(evaluate(model=other), adapter)
        self.assert_error(evaluate(directory=self.path("absent")), "absent")
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            path = os.path.join(adapter, name)
            whole = harness.read_bytes(path)
            for content in (b"", whole[:len(whole) // 2], b"{}", b"\xff" * 100):
                with self.subTest(name, size=len(content)), open(path, "wb") as file:
                    file.write(content)
                    file.flush()
                    self.assert_error(evaluate(), name)
            os.remove(path)
            self.assert_error(evaluate(), name)
            with open(path, "wb") as file:
                file.write(whole)


class Machine(Errors):
    def test_disk_full(self):
        """A limit on file sizes stands for a full disk: whatever the run was writing is gone."""
        for size in (0, 100, 5000, 40000):
            output = self.path("out-%d" % size)
            arguments = self.finetune_arguments(output, save_steps=1, lora_r=16)
            result = self.nibble("finetune", *arguments,
                                 preexec_fn=limit(resource.RLIMIT_FSIZE, size))
            with self.subTest(size):
                self.assert_error(result, output, output=output)

    def test_disk_full_for_real(self):
        disk = self.path("disk")
        os.mkdir(disk)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk],
                          stderr=subprocess.DEVNULL).returncode:
            self.skipTest("mounting a small disk needs root")
        self.addCleanup(subprocess.run, ["umount", disk])
        output = os.path.join(disk, "out")
        result = self.nibble("finetune", *self.finetune_arguments(output, save_steps=1, lora_r=64))
        self.assert_error(result, output, "space", output=output)

    def test_disk_full_keeps_the_last_checkpoint(self):
        output = self.path("out")
        settings = {"max_steps": 4, "save_steps": 2}
        self.finetune(output, **settings)
        for name in ("adapter_model.safetensors", "adapter.gguf", "adapter_config.json"):
            os.remove(os.path.join(output, name))
        before = sorted(os.listdir(output))
        result = self.nibble("finetune", *self.finetune_arguments(output, **settings), "--resume",
                             preexec_fn=limit(resource.RLIMIT_FSIZE, 3000))
        self.assert_error(result, output)
        self.assertEqual(sorted(os.listdir(output)), before)
        self.assertEqual(self.nibble("finetune", *self.finetune_arguments(output, **settings),
                                     "--resume").returncode, 0)

    @unittest.skipIf(os.environ.get("NIBBLE_SANITIZED"), "a sanitizer needs the address space")
    def test_too_little_memory(self):
        # Said before the first step, with the amount.
        self.failing_finetune(self.model, "MiB", settings={"lora_r": 4096},
                              preexec_fn=limit(resource.RLIMIT_AS, 350 << 20))

    @unittest.skipIf(os.environ.get("NIBBLE_SANITIZED"), "a sanitizer needs the address space")
    def test_any_amount_of_memory(self):
        """However little there is, the run ends well or says so."""
        for mib in (1000, 500, 300, 250, 200, 150, 120, 100):
            output = self.path("out-%d" % mib)
            result = self.nibble("finetune", *self.finetune_arguments(output),
                                 preexec_fn=limit(resource.RLIMIT_AS, mib << 20))
            with self.subTest(mib=mib):
                if result.returncode == 127:  # the loader itself had no room for the libraries
                    continue
                if result.returncode:
                    self.assert_error(result, output=output)

    def test_closed_output(self):
        read, write = os.pipe()
        os.close(read)
        result = subprocess.run([harness.NIBBLE, "inspect", self.model], stdout=write,
                                stderr=subprocess.PIPE, timeout=60)
        os.close(write)
        self.assertIn(result.returncode, range(0, 126))


if __name__ == "__main__":
    harness.main()
