# SPDX-License-Identifier: Apache-2.0
"""LoRA on all linear layers of a llama GGUF (SmolLM2) in PyTorch, over the quickstart's rows, under
optimizers of libnibble: one run of bench/quality_optimizer.py --model."""
import json
import math
import os
import subprocess
import sys
import tempfile
import time

import torch
from torch import nn
from torch.nn import functional

from . import environment, nibble_api, small_transformer

RANK, ALPHA = 16, 32
ROWS, HELD_OUT_ROWS = 4, 60  # of a step, and of the held-out loss
LINEARS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class Lora(nn.Module):
    """A frozen linear layer with its pair of low rank."""

    def __init__(self, base):
        super().__init__()
        self.frozen = [base.weight]  # in a list: none of this module's parameters
        self.a = nn.Parameter(torch.empty(RANK, base.in_features))
        self.b = nn.Parameter(torch.zeros(base.out_features, RANK))
        nn.init.kaiming_uniform_(self.a, math.sqrt(5))

    def forward(self, x):
        low = functional.linear(functional.linear(x, self.a), self.b)
        return functional.linear(x, self.frozen[0]) + ALPHA / RANK * low


def read_rows(program, gguf):
    """(training rows, held-out rows), as the quickstart's fine-tuning has them."""
    quickstart = environment.ROOT / "examples" / "quickstart"
    with tempfile.TemporaryDirectory() as work:
        subprocess.run([sys.executable, quickstart / "make_dataset.py", "--train", "2000", "--eval",
                        str(HELD_OUT_ROWS), "--output", work], check=True,
                       stdout=subprocess.DEVNULL)
        parts = []
        for name in ("train", "eval"):
            path = os.path.join(work, name + "-rows")
            subprocess.run([program, "finetune", "--model", gguf, "--dataset",
                            os.path.join(work, name + ".jsonl"), "--output-dir",
                            os.path.join(work, name), "--num-train-epochs", "1",
                            "--dump-batches", path], check=True, stdout=subprocess.DEVNULL)
            with open(path, encoding="utf-8") as file:
                parts.append([(row["input_ids"], row["labels"]) for row in map(json.loads, file)])
    return parts


def read_data(program, gguf):
    """What run() takes as data."""
    sys.path.insert(0, str(environment.ROOT / "tests" / "oracles"))
    import hf_llama
    return hf_llama.load(gguf), *read_rows(program, gguf)


def loss_of(model, rows):
    """(sum of -log p over the rows' targets, their number). Rows are filled up on the right, where
    causal attention does not look."""
    size = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [0] * (size - len(row)) for row, _ in rows])
    labels = torch.tensor([row + [-100] * (size - len(row)) for _, row in rows])[:, 1:]
    total = functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), labels.flatten(),
                                     reduction="sum", ignore_index=-100)
    return total, int((labels != -100).sum())


def held_out_loss(model, rows):
    """Mean over all targets."""
    with torch.no_grad():
        sums = [loss_of(model, rows[i:i + 8]) for i in range(0, len(rows), 8)]
    return float(sum(total for total, _ in sums)) / sum(count for _, count in sums)


def with_lora(model):
    """The pairs by name. Those of an earlier run are replaced."""
    pairs = nn.ModuleDict()
    model.requires_grad_(False)
    for name, layer in list(model.named_modules()):
        if name.rsplit(".", 1)[-1] in LINEARS:
            base = layer if isinstance(layer, nn.Linear) else layer.base
            pair = Lora(base)
            pair.__dict__["base"] = base
            parent, _, last = name.rpartition(".")
            setattr(model.get_submodule(parent), last, pair)
            pairs[name.replace(".", "_")] = pair
    return pairs


def run(library, data, setting, seed, steps):
    """As small_transformer.run."""
    model, train, held_out = data
    torch.manual_seed(seed)
    pairs = with_lora(model)
    if setting.perturb:
        small_transformer.perturb(pairs, setting.perturb)
    weights = small_transformer.Weights(library, pairs, setting, seed)
    batches = torch.Generator().manual_seed(1000 + seed)
    tails = torch.Generator().manual_seed(2000 + seed)
    looks, begin, refused = [held_out_loss(model, held_out)], time.perf_counter(), 0
    for step in range(steps):
        rows = [train[i] for i in torch.randint(0, len(train), (ROWS,), generator=batches)]
        for param in weights.params:
            param.grad.zero_()
        total, count = loss_of(model, rows)
        (total / count).backward()
        if setting.tail:
            small_transformer.make_heavy(weights.params, setting.tail, tails)
        try:
            weights.step(small_transformer.schedule(step, steps, setting.rate))
        except nibble_api.NibbleError as error:
            if error.status != nibble_api.NON_FINITE:
                raise
            refused += 1
    looks.append(held_out_loss(model, held_out))
    result = {"name": setting.name, "seed": seed, "looks": looks, "final": looks[-1],
              "refused_steps": refused, "quantised": weights.quantised(),
              "parameters": sum(param.numel() for param in weights.params),
              "seconds": time.perf_counter() - begin}
    weights.optimizer.close()
    return result
