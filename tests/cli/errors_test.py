# SPDX-License-Identifier: Apache-2.0
"""Models and data that are wrong end in one clear line that names the file, an exit code from 1 to
125, and nothing half-written."""
import json
import os
import random
import struct

import harness
import tiny_model

U32, F32, STRING, ARRAY, U8 = 4, 6, 8, 9, 0


def number(value):
    return (U32, struct.pack("<I", value))


class Models(harness.Errors):
    def bad_model(self, name, *needles, **changes):
        """A model that is wrong on purpose is refused by every command that reads models."""
        path = self.path(name + ".gguf")
        tiny_model.write(path, **changes)
        with self.subTest(name):
            self.assert_error(self.nibble("eval", "--model", path, "--dataset", self.data,
                                          "--cutoff-len", 64), path, *needles)
            self.failing_finetune(path, *needles, settings={"model": path})

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


class Data(harness.Errors):
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


if __name__ == "__main__":
    harness.main()
