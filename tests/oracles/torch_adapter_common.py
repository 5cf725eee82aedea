# SPDX-License-Identifier: Apache-2.0
"""What the parts of torch_adapter_oracle.py share. Importing it reads the command line, since
nibble_torch loads its library when it is imported."""
import argparse
import os
import sys
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
parser = argparse.ArgumentParser(description="nibble_torch against its peers")
parser.add_argument("library", nargs="?")
parser.add_argument("--golden", default=os.environ.get("NIBBLE_GOLDEN_DIR") or os.path.join(
    HERE, "..", "..", "..", "shared", "golden"))
arguments = parser.parse_args()
if arguments.library:
    os.environ["NIBBLE_LIBRARY"] = os.path.abspath(arguments.library)
REPOSITORY = os.path.abspath(os.path.join(HERE, "..", ".."))
sys.path.insert(0, os.path.join(REPOSITORY, "examples", "pytorch", "src"))

import torch

SHAPES = ((96, 64), (8192,), (33, 7), (5,), ())
STEPS = 30
TORCH_CASES = [
    ("AdamW", {}), ("AdamW", {"lr": 1e-2, "weight_decay": 0.3, "betas": (0.8, 0.95), "eps": 1e-5}),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.1}), ("AdamW", {"maximize": True}),
    ("Adam", {"weight_decay": 0.1}), ("Adam", {"amsgrad": True}),
    ("Adam", {"weight_decay": 0.1, "decoupled_weight_decay": True}),
    ("SGD", {"lr": 0.01, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.01, "dampening": 0.4}),
    ("Adagrad", {"lr_decay": 0.1, "weight_decay": 0.1, "initial_accumulator_value": 0.3}),
    ("RMSprop", {"weight_decay": 0.1}), ("RMSprop", {"momentum": 0.9, "weight_decay": 0.1}),
    ("Adafactor", {})]

results = []


def check(what, measured, bar=None, at_least=None):
    """measured <= bar, measured >= at_least, or measured true."""
    if at_least is not None:
        good, figure = measured >= at_least, "%.3g >= %.3g" % (measured, at_least)
    elif bar is not None:
        good, figure = measured <= bar, "%.3g <= %.3g" % (measured, bar)
    else:
        good, figure = bool(measured), ""
    results.append(good)
    print("%s  %s  %s" % ("ok    " if good else "FAILED", what, figure), flush=True)


def parameters(shapes=SHAPES, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.nn.Parameter(torch.randn(shape, generator=generator).to(dtype))
            for shape in shapes]


def gradients(params, step, scale=1.0):
    """The same for the same step, whoever asks."""
    generator = torch.Generator().manual_seed(1000 + step)
    for p in params:
        p.grad = (torch.randn(p.shape, generator=generator) * scale).to(p.dtype)


def run(optimizer, params, first=0, last=STEPS, scale=1.0):
    for step in range(first, last):
        gradients(params, step, scale)
        optimizer.step()
    return params


def apart(ours, theirs):
    """The largest |a - b| / (1e-6 + 1e-5 |b|): at most 1 is torch.testing's 1e-6 / 1e-5."""
    return max(((a.detach().double() - b.detach().double()).abs()
                / (1e-6 + 1e-5 * b.detach().double().abs())).max().item()
               for a, b in zip(ours, theirs))


def same_bits(ours, theirs):
    return all(a.dtype == b.dtype and a.shape == b.shape and
               torch.equal(a.detach().contiguous().view(-1).view(torch.uint8),
                           b.detach().contiguous().view(-1).view(torch.uint8))
               for a, b in zip(ours, theirs))


def refused(what, call, words, kind=(ValueError, NotImplementedError, TypeError)):
    try:
        call()
    except kind as error:
        check("%s: %s" % (what, str(error).split("\n")[0][:110]), words in str(error))
    else:
        check("%s was not refused" % what, False)


def eager_torchao():
    """torchao compiles its step; eagerly it is the same, but for amsgrad, which fails."""
    torch._dynamo.config.disable = True
    warnings.filterwarnings("ignore", message="torch.compile with fullgraph=True found no")
