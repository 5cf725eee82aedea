# SPDX-License-Identifier: Apache-2.0
"""Every flag of `nibble finetune` changes what it is for, and every name of it does the same. A flag
that --help lists and that is not in the table below fails the test."""
import json
import os
import re
import unittest

import harness
import tiny_model

# Flag -> (value, what must differ from the same run without it). What a run shows:
#   adapter  the bytes of adapter_model.safetensors        losses   loss and eval_loss of the log
#   lines    the steps that were logged                    said     standard error
#   saved    the checkpoints that are there                files    all names in the output directory
ADAPTER = {
    "max-samples": 5, "cutoff-len": 32, "no-packing": "", "train-on-inputs": "", "lora-rank": 8,
    "lora-alpha": 32, "lora-dropout": 0.5, "lora-target": "q_proj,v_proj", "use-rslora": "",
    "learning-rate": 0.02, "lr-scheduler-type": "linear", "warmup-ratio": 0.5, "warmup-steps": 3,
    "max-grad-norm": 0.01, "weight-decay": 0.5, "adam-beta1": 0, "adam-beta2": 0.5,
    "adam-epsilon": 0.1, "optim": "adamw_8bit", "micro-batch-size": 2,
    "gradient-accumulation-steps": 1, "max-steps": 5, "seed": 43, "val-size": 4,
}
OTHERS = {
    "eval-dataset": ("EVAL", "losses"), "logging-steps": (1, "lines"), "eval-steps": (1, "lines"),
    "save-steps": (2, "saved"), "no-gradient-checkpointing": ("", "said"),
}
# These have tests of their own below, or in resume_test.py and errors_test.py.
ELSEWHERE = {"help", "model", "dataset", "output-dir", "chat-template", "num-train-epochs",
             "save-total-limit", "resume", "resume-from-checkpoint", "compute-dtype", "config",
             "dump-batches", "dry-run", "threads", "isa", "packing", "gradient-checkpointing"}
# Rank 64: tensors large enough for 8-bit states.
BASE = {"lora_r": 64, "max_steps": 4, "save_steps": 0, "logging_steps": 2, "cutoff_len": 96}


def flag(name, value):
    return ["--" + name] if value == "" else ["--%s=%s" % (name, value)]


class Flags(harness.Workplace):
    def setUp(self):
        super().setUp()
        self.runs = 0

    def observe(self, *extra, **changes):
        self.runs += 1
        output = self.path("run-%d" % self.runs)
        # A flag under test replaces the base's, whatever its spelling.
        given = {re.split("=", a[2:])[0].replace("-", "_") for a in extra}
        alias = {"lora_rank": "lora_r"}
        given |= {alias[g] for g in given if g in alias}
        settings = {k: v for k, v in {**BASE, "eval_dataset": None, **changes}.items()
                    if k not in given}
        arguments = [a for a in self.finetune_arguments(output, **settings)
                     if a[2:].split("=")[0].replace("-", "_") not in given]
        result = self.nibble("finetune", *arguments, *extra)
        self.assertEqual(result.returncode, 0, (extra, result.stderr))
        log = harness.read_json_lines(os.path.join(output, "trainer_log.jsonl"))
        names = sorted(os.listdir(output))
        # Speeds, times and sizes measured differ from run to run.
        said = re.sub(r"\d+ tokens/s|peak \d+ MiB|ETA [\d:]+|run-\d+|\d+ s of", "", result.stderr)
        return {"adapter": harness.digest(os.path.join(output, "adapter_model.safetensors")),
                "isa": re.search(r"instruction set (\S+)", result.stdout).group(1),
                "losses": [(e.get("loss"), e.get("eval_loss")) for e in log],
                "lines": [e["current_steps"] for e in log], "files": names, "said": said,
                "saved": [n for n in names if n.startswith("checkpoint-")]}

    def options(self):
        """[[every name of an option]] as --help tells them."""
        text = self.nibble("finetune", "--help").stdout
        found = []
        for line in text.splitlines():
            match = re.match(r"\s+(-[^\s]+)", line)
            if match:
                names = re.sub(r"\{[^}]*\}", "", match.group(1)).split(",")
                found.append([n.lstrip("-") for n in names if n.startswith("--")])
        self.assertGreater(len(found), 35, text)
        return found

    def test_same_twice(self):
        first, second = self.observe(), self.observe()
        self.assertEqual(first, second)

    def test_every_flag_is_tested(self):
        known = set(ADAPTER) | set(OTHERS) | ELSEWHERE
        missing = [names for names in self.options() if not known & set(names)]
        self.assertEqual(missing, [])

    def test_flags_that_change_the_adapter(self):
        base = self.observe()
        for name, value in ADAPTER.items():
            with self.subTest(name):
                # Decay and betas do nothing to a first step from B = 0 alone; four steps do.
                self.assertNotEqual(self.observe(*flag(name, value))["adapter"], base["adapter"])

    def test_flags_that_change_something_else(self):
        base = self.observe()
        for name, (value, what) in OTHERS.items():
            with self.subTest(name):
                value = self.held_out if value == "EVAL" else value
                changed = self.observe(*flag(name, value))
                self.assertNotEqual(changed[what], base[what])
                self.assertEqual(changed["adapter"], base["adapter"])

    def test_flags_that_change_no_number(self):
        base = self.observe()["adapter"]
        for extra in (["--threads=2"], ["--packing"], ["--packing=true"],
                      ["--gradient-checkpointing"]):
            with self.subTest(extra):
                self.assertEqual(self.observe(*extra)["adapter"], base)

    def test_instruction_sets(self):
        """Products are not the same bits on every instruction set, but nearly; and the one that was
        forced is in force."""
        held_out = {"eval_dataset": self.held_out, "logging_steps": 1}
        base = self.observe(**held_out)
        scalar = self.observe("--isa=scalar", **held_out)
        self.assertEqual(scalar["isa"], "scalar")
        self.assertEqual(len(scalar["losses"]), 5)
        for mine, best in zip(scalar["losses"], base["losses"]):
            for a, b in zip(mine, best):
                self.assertEqual(a is None, b is None)
                if a is not None:
                    self.assertAlmostEqual(a, b, delta=2e-3)

    def test_model_and_data(self):
        base = self.observe()["adapter"]
        other = self.path("other.gguf")
        tiny_model.write(other, seed=2)
        self.assertNotEqual(self.observe(model=other)["adapter"], base)
        self.assertNotEqual(self.observe(dataset=self.held_out)["adapter"], base)

    def test_epochs(self):
        one = self.observe("--num-train-epochs=1", max_steps=None)
        two = self.observe("--num-train-epochs=2", max_steps=None)
        half = self.observe("--num-train-epochs=0.5", max_steps=None)
        self.assertEqual(two["lines"][-1], 2 * one["lines"][-1])
        self.assertLess(half["lines"][-1], one["lines"][-1])

    def test_save_total_limit(self):
        for count in (1, 3):
            saved = self.observe("--save-steps=1", "--save-total-limit=%d" % count)["saved"]
            self.assertEqual(len(saved), count)
            self.assertIn("checkpoint-4", saved)

    def test_resume_from_checkpoint(self):
        output = self.path("out")
        settings = {**BASE, "save_steps": 1}
        self.finetune(output, **settings)
        whole = harness.digest(os.path.join(output, "adapter_model.safetensors"))
        for choice, step in (("auto", 4), (os.path.join(output, "checkpoint-3"), 3)):
            result = self.nibble("finetune", *self.finetune_arguments(output, **settings),
                                 "--resume-from-checkpoint", choice)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertIn("resumed after step %d" % step, result.stderr)
            self.assertEqual(
                harness.digest(os.path.join(output, "adapter_model.safetensors")), whole)

    def test_compute_dtype(self):
        arguments = list(self.finetune_arguments(self.path("bf16"), compute_dtype="bf16"))
        result = self.nibble("finetune", *arguments)
        if result.returncode and "bf16" in result.stderr:
            self.skipTest("no bf16 on this machine")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.finetune(self.path("fp32"))
        self.assertNotEqual(*(harness.digest(self.path(d, "adapter_model.safetensors"))
                              for d in ("bf16", "fp32")))

    def test_chat_template(self):
        model = self.path("no-template.gguf")
        tiny_model.write(model, change_metadata=lambda keys: keys.pop("tokenizer.chat_template"))
        result = self.nibble("finetune", *self.finetune_arguments(self.path("a"), model=model))
        self.assertIn(result.returncode, range(1, 126))
        self.assertIn("--chat-template", result.stderr)
        forced = self.observe("--chat-template=chatml", model=model)
        self.assertEqual(forced["adapter"], self.observe()["adapter"])

    def test_config_and_its_override(self):
        config = self.path("run.yaml")
        with open(config, "w", encoding="utf-8") as file:
            file.write("lora_dropout: 0.25\nlora_target: [q_proj, v_proj]\npacking: false\nseed: 5\n")
        by_file = self.observe("--config=" + config)
        by_flags = self.observe("--lora-dropout=0.25", "--lora-target=q_proj,v_proj",
                                "--no-packing", "--seed=5")
        self.assertEqual(by_file["adapter"], by_flags["adapter"])
        overridden = self.observe("--config=" + config, "--seed=6")
        self.assertNotEqual(overridden["adapter"], by_file["adapter"])

    def test_dump_batches(self):
        path = self.path("batches.jsonl")
        arguments = self.finetune_arguments(self.path("out"), **BASE)
        result = self.nibble("finetune", *arguments, "--dump-batches", path)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertFalse(os.path.exists(self.path("out")))
        rows = harness.read_json_lines(path)
        self.assertEqual({row["step"] for row in rows}, set(range(BASE["max_steps"])))
        for row in rows:
            self.assertEqual(len(row["input_ids"]), len(row["labels"]))
            self.assertTrue(any(label != -100 for label in row["labels"]))
            for token, label in zip(row["input_ids"], row["labels"]):
                self.assertIn(label, (token, -100))

    def dry_run(self, *extra):
        result = self.nibble("finetune", "--model", self.model, "--dataset", self.data, "--dry-run",
                             "--cutoff-len=96", *extra)
        self.assertEqual(result.returncode, 0, (extra, result.stderr))
        return json.loads(result.stdout)

    def test_dry_run_tells_every_option(self):
        out = self.path("out")
        told = self.dry_run("--output-dir", out, "--save-steps=7", "--threads=1", "--isa=scalar",
                            "--no-gradient-checkpointing", "--optim=paged_adamw_8bit",
                            "--num-train-epochs=2")
        expected = {"model": self.model, "dataset": self.data, "eval_dataset": "", "output_dir": out,
                    "save_steps": 7, "logging_steps": 10, "eval_steps": 0, "save_total_limit": 2,
                    "threads": 1, "instruction_set": "scalar", "gradient_checkpointing": False,
                    "optim": "adamw_8bit", "compute_dtype": "fp32", "resume": False,
                    "resume_from_checkpoint": "", "lora_alpha": 16, "cutoff_len": 96}
        self.assertEqual({key: told.get(key) for key in expected}, expected)
        self.assertEqual(told["warmup_steps"], -(-told["total_steps"] * 3 // 100))

    def test_dry_run_writes_nothing(self):
        before = sorted(os.listdir(self.dir))
        self.dry_run("--output-dir", self.path("out"))
        self.assertEqual(sorted(os.listdir(self.dir)), before)

    def test_every_name_of_a_flag(self):
        for names in self.options():
            values = [ADAPTER[n] for n in names if n in ADAPTER]
            if not values or "cutoff-len" in names:
                continue
            meant = [n for n in names if n in ADAPTER][0]
            if meant == "no-packing":
                continue
            expected = self.dry_run(*flag(meant, values[0]))
            self.assertNotEqual(expected, self.dry_run(), meant)
            for name in names:
                if name.startswith(("no-", "train-on-completions")):
                    continue
                for spelling in {name, name.replace("-", "_")}:
                    with self.subTest(spelling):
                        self.assertEqual(self.dry_run(*flag(spelling, values[0])), expected)

    def test_layers_by_the_names_of_gguf(self):
        self.assertEqual(self.dry_run("--lora-target=q_proj,down_proj"),
                         self.dry_run("--lora-target", "attn_q,ffn_down"))


class Generate(harness.Workplace):
    def say(self, *extra):
        result = self.nibble("generate", "--model", self.model, "--prompt", "the stone",
                             *extra,
                             *([] if "--max-new-tokens=3" in extra else ["--max-new-tokens=24"]))
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def test_flags(self):
        base = self.say()
        self.assertEqual(base, self.say())
        for extra in (["--raw"], ["--system=Be brief"], ["--max-new-tokens=3"],
                      ["--temperature=2"]):
            with self.subTest(extra):
                self.assertNotEqual(self.say(*extra), base)
        hot = self.say("--temperature=2")
        self.assertNotEqual(self.say("--temperature=2", "--seed=43"), hot)
        self.assertEqual(self.say("--temperature=2", "--top-k=1"), base)
        self.assertNotEqual(self.say("--temperature=2", "--top-p=0.3"), hot)

    def test_adapter(self):
        adapter = self.path("adapter")
        self.finetune(adapter)
        self.assertNotEqual(self.say("--adapter", adapter), self.say())

    def test_log_probabilities(self):
        answer = json.loads(self.say("--logprobs=265"))
        self.assertAlmostEqual(sum(2.718281828459045 ** t["logprob"] for t in answer["top"]), 1,
                               delta=1e-4)


if __name__ == "__main__":
    harness.main()
