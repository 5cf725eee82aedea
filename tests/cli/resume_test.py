# SPDX-License-Identifier: Apache-2.0
"""A killed run, resumed, gives the very bytes of an uninterrupted one."""
import os
import random
import shutil
import signal
import subprocess
import time
import unittest

import harness

KILLS = 10
STEPS = 40
RESULTS = ("adapter_model.safetensors", "adapter.gguf", "adapter_config.json")


class Resume(harness.Workplace):
    # Everything that has a state: 8-bit moments, dropout, a schedule, packs over several epochs.
    SETTINGS = {"max_steps": STEPS, "optim": "adamw_8bit", "lora_dropout": 0.1, "save_steps": 3,
                "logging_steps": 1, "learning_rate": 0.003, "lora_r": 64}

    def run_whole(self, output, **changes):
        self.finetune(output, eval_dataset=self.held_out, **{**self.SETTINGS, **changes})

    def start(self, output):
        arguments = self.finetune_arguments(output, eval_dataset=self.held_out, **self.SETTINGS)
        return subprocess.Popen([harness.NIBBLE, "finetune", *arguments, "--resume"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def losses(self, output):
        keys = ("current_steps", "loss", "eval_loss", "lr", "grad_norm", "epoch")
        return [tuple(line.get(key) for key in keys)
                for line in harness.read_json_lines(os.path.join(output, "trainer_log.jsonl"))]

    def assert_same_results(self, first, second):
        for name in RESULTS:
            self.assertEqual(harness.digest(os.path.join(first, name)),
                             harness.digest(os.path.join(second, name)), name)
        self.assertEqual(self.losses(first), self.losses(second))
        self.assertFalse([n for n in os.listdir(second) if n.startswith(".")])

    def test_kill_at_ten_random_moments(self):
        whole, broken = self.path("whole"), self.path("broken")
        begin = time.monotonic()
        self.run_whole(whole)
        duration = time.monotonic() - begin
        seed = os.getpid()
        rng = random.Random(seed)
        kills = attempts = 0
        while kills < KILLS:
            attempts += 1
            self.assertLess(attempts, 50 * KILLS, "the run never lives long enough to be killed")
            run = self.start(broken)
            time.sleep(rng.uniform(0, 1.2 * duration / 2))
            run.send_signal(signal.SIGKILL)
            _, errors = run.communicate()
            if run.returncode == -signal.SIGKILL:
                kills += 1
                continue
            # It came to its end before the signal did: what it wrote is judged, and a new one begun.
            self.assertEqual(run.returncode, 0, errors)
            self.assert_same_results(whole, broken)
            shutil.rmtree(broken)
        run = self.start(broken)
        _, errors = run.communicate()
        self.assertEqual(run.returncode, 0, errors)
        self.assert_same_results(whole, broken)
        print("seed %d: killed %d times, %d runs" % (seed, kills, attempts + 1))

    def test_interrupt_saves_and_resumes(self):
        whole, broken = self.path("whole"), self.path("broken")
        self.run_whole(whole, save_steps=0)
        arguments = list(self.finetune_arguments(broken, eval_dataset=self.held_out,
                                                 **{**self.SETTINGS, "save_steps": 0}))
        with subprocess.Popen([harness.NIBBLE, "finetune", *arguments], stdout=subprocess.DEVNULL,
                              stderr=subprocess.PIPE, text=True) as run:
            for line in run.stderr:
                if line.startswith("step 2/"):
                    break
            run.send_signal(signal.SIGINT)
            run.communicate()
        self.assertEqual(run.returncode, 130)
        self.assertFalse(os.path.exists(os.path.join(broken, "adapter_config.json")))
        result = self.nibble("finetune", *arguments, "--resume")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("resumed after step", result.stderr)
        self.assert_same_results(whole, broken)

    def test_other_settings_are_refused(self):
        output = self.path("run")
        self.run_whole(output)
        changed = {**self.SETTINGS, "learning_rate": 0.004}
        result = self.nibble("finetune", *self.finetune_arguments(
            output, eval_dataset=self.held_out, **changed), "--resume")
        self.assertIn(result.returncode, range(1, 126))
        self.assertIn("learning_rate", result.stderr)

    def test_another_instruction_set_is_warned_of(self):
        output = self.path("run")
        self.run_whole(output, max_steps=4, save_steps=2)
        again = list(self.finetune_arguments(output, eval_dataset=self.held_out, **{
            **self.SETTINGS, "max_steps": 4, "save_steps": 2}))
        chosen = ["--resume-from", os.path.join(output, "checkpoint-2")]
        result = self.nibble("finetune", *again, *chosen)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertNotIn("warning", result.stderr)
        if "instruction set scalar" in result.stdout:
            self.skipTest("this machine has no instruction set but scalar")
        result = self.nibble("finetune", *again, *chosen, "--isa=scalar")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stderr, r'warning: .*checkpoint-2: "instruction_set" was .*"scalar"')

    def test_damaged_checkpoint_is_passed_over(self):
        whole, broken = self.path("whole"), self.path("broken")
        self.run_whole(whole)
        self.run_whole(broken)
        names = [n for n in os.listdir(broken) if n.startswith("checkpoint-")]
        newest = max(names, key=lambda n: int(n.split("-")[1]))
        self.assertGreater(len(names), 1)
        victim = os.path.join(broken, newest, "adapter_model.safetensors")
        content = bytearray(harness.read_bytes(victim))
        content[-5] ^= 1
        with open(victim, "wb") as file:
            file.write(content)
        for name in RESULTS:
            os.remove(os.path.join(broken, name))
        run = self.start(broken)
        _, errors = run.communicate()
        self.assertEqual(run.returncode, 0, errors)
        self.assertIn(newest, errors)
        self.assert_same_results(whole, broken)


if __name__ == "__main__":
    harness.main()
