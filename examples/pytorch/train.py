# SPDX-License-Identifier: Apache-2.0
"""A character model trained twice from one start: with torch.optim.AdamW, and with int8 states.

    python train.py [TEXT] [--steps 200]

TEXT: a UTF-8 file; without one, the sources of Python's own standard library. A tenth of it is held
out. Prints both held-out losses (nats a byte) and the bytes of both optimizers' states.
"""
import argparse
import glob
import os

import torch
import nibble_torch

CONTEXT, WIDTH, BATCH = 32, 256, 64


def load_bytes(path):
    library = os.path.join(os.path.dirname(os.__file__), "*.py")
    paths = [path] if path else sorted(glob.glob(library))
    text = b"".join(open(name, "rb").read() for name in paths)[:2_000_000]
    return torch.tensor(list(text), dtype=torch.int64)


def make_model():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Embedding(256, 32), torch.nn.Flatten(), torch.nn.Linear(32 * CONTEXT, WIDTH),
        torch.nn.GELU(), torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, WIDTH), torch.nn.GELU(),
        torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, 256))


def loss_at(model, data, starts):
    windows = data[starts[:, None] + torch.arange(CONTEXT + 1)]
    return torch.nn.functional.cross_entropy(model(windows[:, :-1]), windows[:, -1])


def train(make_optimizer, data, steps):
    """The held-out loss, and the optimizer."""
    model = make_model()
    optimizer = make_optimizer(model)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    split = len(data) * 9 // 10
    order = torch.Generator().manual_seed(1)
    for _ in range(steps):
        starts = torch.randint(split - CONTEXT - 1, (BATCH,), generator=order)
        optimizer.zero_grad()
        loss_at(model, data, starts).backward()
        optimizer.step()
        schedule.step()
    with torch.no_grad():
        held_out = torch.arange(split, len(data) - CONTEXT - 1, 50)
        return loss_at(model, data, held_out).item(), optimizer


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", nargs="?")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()
    data = load_bytes(arguments.text)
    full, optimizer = train(lambda m: torch.optim.AdamW(m.parameters()), data, arguments.steps)
    size = sum(t.numel() * t.element_size() for s in optimizer.state.values()
               for t in s.values() if t.dim() > 0)
    print("torch.optim.AdamW       held-out loss %.4f   states %9d bytes" % (full, size))
    small, optimizer = train(lambda m: nibble_torch.AdamW8bit(m.named_parameters()), data,
                             arguments.steps)
    size = sum(entry["bytes"] for entry in optimizer.report())
    print("nibble_torch.AdamW8bit  held-out loss %.4f   states %9d bytes" % (small, size))


if __name__ == "__main__":
    main()
