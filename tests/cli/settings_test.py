# SPDX-License-Identifier: Apache-2.0
"""Settings that cannot work, on the command line and in a file: one clear line that names them."""
import os

import harness

# What no run can work with.
VALUES = [
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
    ("save_total_limit", 0), ("max_samples", 0),
    ("warmup_steps", -5), ("adam_epsilon", "inf"), ("lora_alpha", "nan"), ("val_size", "nan"),
    ("save_steps", "often")]


class Settings(harness.Errors):
    def changes(self, name, value):
        return {name: value, **({"max_steps": None} if name == "num_train_epochs" else {})}

    def test_values(self):
        for name, value in VALUES:
            with self.subTest(name, value=value):
                self.failing_finetune(settings=self.changes(name, value))

    def test_values_in_a_file(self):
        """The error says where the value stands."""
        path = self.path("run.yaml")
        for name, value in VALUES:
            with open(path, "w", encoding="utf-8") as file:
                file.write("# settings\n%s: %s\n" % (name, value))
            with self.subTest(name, value=value):
                self.failing_finetune(path + ": line 2: ", settings=self.changes(name, None),
                                      extra=["--config", path])

    def test_choices_are_listed_plainly(self):
        self.failing_finetune("--optim", "adamw_bnb_8bit", "SGD", settings={"optim": "SGD"})
        for command in ("finetune", "generate", "eval", "inspect"):
            text = self.nibble(command, "--help").stdout
            self.assertNotIn("->", text)
            self.assertNotRegex(text, r"\d{20}|e\+308")

    def test_generate(self):
        for flag, value in [("seed", "-3"), ("seed", "1.5"), ("temperature", "nan"),
                            ("temperature", "inf"), ("temperature", "-1"), ("top-p", "nan"),
                            ("top-p", "1.5"), ("top-k", "-1"), ("max-new-tokens", "0")]:
            with self.subTest(flag, value=value):
                self.assert_error(self.nibble("generate", "--model", self.model, "--prompt", "a",
                                              "--%s=%s" % (flag, value)), "--" + flag)

    def test_unknown_flag(self):
        self.failing_finetune("--learnin-rate", extra=["--learnin-rate=1"])
        self.failing_finetune("--rank-of-lora", extra=["--rank_of_lora", "4"])
        self.failing_finetune("stray", extra=["stray"])
        self.assert_error(self.nibble("finetun"), '"finetun"', "finetune, generate")
        self.assert_error(self.nibble("foo", "--model", self.model), '"foo"')
        self.assert_error(self.nibble())

    def test_missing_flag(self):
        self.failing_finetune("--model", settings={"model": None})
        self.failing_finetune("--dataset", settings={"dataset": None})
        self.assert_error(self.nibble("finetune", *self.finetune_arguments(None)), "--output-dir")

    def test_yaml(self):
        for name, content, *needles in [
                ("unknown", "lora_r: 4\nlora_rnk: 8\n", "line 2", "lora_rnk"),
                ("syntax", "lora_r: [4\n"), ("list", "- 4\n"), ("nested", "lora_dropout: {a: 4}\n"),
                ("deeper", "lora_target: [[q_proj]]\n", "line 1"),
                ("twice", "seed: 1\nlora_r: 4\nseed: 1\n", "line 3", "line 1"),
                ("alias", "lora_r: 4\nlora_rank: 8\n", "line 2", "lora_rank", "line 1"),
                ("config", "config: other.yaml\n")]:
            path = self.path(name + ".yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
            with self.subTest(name):
                self.failing_finetune(path, *needles, extra=["--config", path])
        self.failing_finetune("absent.yaml", extra=["--config", self.path("absent.yaml")])

    def test_yaml_without_settings(self):
        for number, content in enumerate(("", "# nothing yet\n", "---\n", "seed:\n")):
            path = self.path("empty.yaml")
            with open(path, "w", encoding="utf-8") as file:
                file.write(content)
            result = self.nibble("finetune", *self.finetune_arguments(
                self.path("run-%d" % number), max_steps=1), "--config", path)
            self.assertEqual(result.returncode, 0, (content, result.stderr))

    def test_bf16_without_hardware(self):
        self.failing_finetune("bf16", settings={"compute_dtype": "bf16", "isa": "avx2"})


if __name__ == "__main__":
    harness.main()
