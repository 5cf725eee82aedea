# SPDX-License-Identifier: Apache-2.0
"""nibble against PEFT on PyTorch: peft_oracle.py NIBBLE MODEL.gguf [--train-rows N] [--eval-rows N]

  1. The quickstart's fine-tuning is run by nibble, and by PEFT from nibble's own first adapter, on
     the very rows of every step (--dump-batches), with the same settings: the held-out losses must
     agree within 0.02 nats.
  2. PEFT loads the adapter that nibble trained and gives nibble's log-probabilities of the whole
     vocabulary within 1e-3.
"""
import argparse
import collections
import json
import os
import subprocess
import sys
import tempfile
import time

import torch
import yaml
from peft import PeftModel
from transformers import get_cosine_schedule_with_warmup

import hf_llama

HERE = os.path.dirname(os.path.abspath(__file__))
QUICKSTART = os.path.join(HERE, "..", "..", "examples", "quickstart")
CONFIG = os.path.join(QUICKSTART, "quickstart.yaml")
LOSS_TOLERANCE, LOG_PROBABILITY_TOLERANCE = 0.02, 1e-3
PROMPTS = ["The capital of France is", "def quicksort(arr):\n    pivot =", "Define the noun \"tide\".",
           "1, 2, 3, 5, 8, 13,", "Caf\u00e9 na\u00efve \u4e2d\u6587 don't"]
ROWS_A_PASS = 8


def run(*command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def read_lines(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def loss_sum(model, rows):
    """Sum over the rows' targets of -log p, as one pass. Rows are filled up on the right, where
    causal attention does not look."""
    size = max(len(row["input_ids"]) for row in rows)
    ids = torch.tensor([row["input_ids"] + [0] * (size - len(row["input_ids"])) for row in rows])
    labels = torch.tensor([row["labels"] + [-100] * (size - len(row["labels"])) for row in rows])
    logits = model(ids).logits[:, :-1]
    return torch.nn.functional.cross_entropy(logits.reshape(-1, logits.shape[-1]),
                                             labels[:, 1:].reshape(-1), reduction="sum",
                                             ignore_index=-100)


def targets(rows):
    return sum(label != -100 for row in rows for label in row["labels"][1:])


def passes(rows):
    """Rows of like length together: less filling."""
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    return [ordered[i:i + ROWS_A_PASS] for i in range(0, len(ordered), ROWS_A_PASS)]


def mean_loss(model, rows):
    model.eval()
    with torch.no_grad():
        return sum(float(loss_sum(model, group)) for group in passes(rows)) / targets(rows)


def train(model, steps, settings):
    """The loop that HF's Trainer has, with the loss weighed by tokens over a whole step."""
    model.train()
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=float(settings["learning_rate"]),
                                  betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0)
    warmup = -(-len(steps) * float(settings["warmup_ratio"]) // 1)
    schedule = get_cosine_schedule_with_warmup(optimizer, int(warmup), len(steps))
    begin, tokens = time.monotonic(), 0
    for number, rows in enumerate(steps, 1):
        optimizer.zero_grad()
        count, total = targets(rows), 0.0
        for group in passes(rows):
            loss = loss_sum(model, group) / count
            loss.backward()
            total += float(loss)
        torch.nn.utils.clip_grad_norm_(parameters, float(settings["max_grad_norm"]))
        optimizer.step()
        schedule.step()
        tokens += sum(len(row["input_ids"]) for row in rows)
        if number % 10 == 0 or number == len(steps):
            print("  PEFT step %d/%d loss %.4f, %.0f tokens/s"
                  % (number, len(steps), total, tokens / (time.monotonic() - begin)), flush=True)


class Nibble:
    def __init__(self, program, model, work):
        self.program, self.model, self.work = program, model, work

    def finetune(self, name, rows, *more):
        output = os.path.join(self.work, name)
        run(self.program, "finetune", "--config", CONFIG, "--model", self.model, "--dataset", rows,
            "--output-dir", output, *more)
        return output

    def batches(self, rows, *more):
        path = os.path.join(self.work, "batches-of-%s" % os.path.basename(rows))
        if os.path.exists(path):  # nibble overwrites nothing
            os.remove(path)
        self.finetune("unused", rows, "--dump-batches", path, *more)
        steps = collections.defaultdict(list)
        for row in read_lines(path):
            steps[row["step"]].append(row)
        return [steps[number] for number in sorted(steps)]

    def log_probabilities(self, adapter, prompt, count):
        answer = json.loads(run(self.program, "generate", "--model", self.model, "--adapter",
                                adapter, "--raw", "--prompt", prompt, "--logprobs", str(count)))
        found = torch.empty(count)
        for entry in answer["top"]:
            found[entry["id"]] = entry["logprob"]
        return answer["ids"], found


def compare_training(nibble, data, trained):
    """(good, nibble's trained adapter)"""
    with open(CONFIG, encoding="utf-8") as file:
        settings = yaml.safe_load(file)
    rows, held_out = data
    trained = trained or nibble.finetune("trained", rows, "--eval-dataset", held_out)
    log = [e["eval_loss"] for e in read_lines(os.path.join(trained, "trainer_log.jsonl"))
           if e.get("eval_loss") is not None]
    first = nibble.finetune("first", rows, "--max-steps", "0")
    steps = nibble.batches(rows)
    held_out_rows = [row for step in nibble.batches(held_out, "--num-train-epochs", "1")
                     for row in step]
    peer = PeftModel.from_pretrained(hf_llama.load(nibble.model), first, is_trainable=True)
    before = mean_loss(peer, held_out_rows)
    train(peer, steps, settings)
    after = mean_loss(peer, held_out_rows)
    good = abs(log[0] - before) <= LOSS_TOLERANCE and abs(log[-1] - after) <= LOSS_TOLERANCE
    # Control: training did something that a tolerance of 0.02 can see.
    good = good and before - after > 10 * LOSS_TOLERANCE
    print("%s  %d steps, held-out loss: nibble %.4f -> %.4f, PEFT %.4f -> %.4f; apart by %+.4f"
          % ("ok    " if good else "FAILED", len(steps), log[0], log[-1], before, after,
             log[-1] - after), flush=True)
    return good, trained


def compare_logits(nibble, adapter):
    peer = PeftModel.from_pretrained(hf_llama.load(nibble.model), adapter).eval()
    vocabulary = peer.config.vocab_size
    failed = 0
    for prompt in PROMPTS:
        ids, ours = nibble.log_probabilities(adapter, prompt, vocabulary)
        with torch.no_grad():
            theirs = torch.log_softmax(peer(torch.tensor([ids])).logits[0, -1].double(), 0)
            with peer.disable_adapter():
                base = torch.log_softmax(peer(torch.tensor([ids])).logits[0, -1].double(), 0)
        worst = float((ours - theirs).abs().max())
        # Control: without the adapter the difference is far larger.
        control = float((ours - base).abs().max())
        good = worst <= LOG_PROBABILITY_TOLERANCE < control / 10
        failed += not good
        print("%s  %-28.28r %d log-probabilities, worst %.1e (without the adapter %.2f)"
              % ("ok    " if good else "FAILED", prompt, vocabulary, worst, control), flush=True)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("nibble")
    parser.add_argument("model")
    parser.add_argument("--train-rows", default="2000")
    parser.add_argument("--eval-rows", default="100")
    parser.add_argument("--trained", metavar="DIR", help="what nibble made of the same rows with the "
                        "quickstart's settings: the quickstart's output (default: train here)")
    options = parser.parse_args()
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    with tempfile.TemporaryDirectory() as work:
        run(sys.executable, os.path.join(QUICKSTART, "make_dataset.py"), "--train",
            options.train_rows, "--eval", options.eval_rows, "--output", work)
        nibble = Nibble(os.path.abspath(options.nibble), os.path.abspath(options.model), work)
        good, adapter = compare_training(nibble, [os.path.join(work, name) for name in
                                                  ("train.jsonl", "eval.jsonl")], options.trained)
        failed = compare_logits(nibble, adapter) + (not good)
    print("%d passed, %d failed" % (1 + len(PROMPTS) - failed, failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
