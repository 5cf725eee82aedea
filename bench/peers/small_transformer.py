# SPDX-License-Identifier: Apache-2.0
"""A character-level transformer of 0.8 M parameters, trained from scratch on WordNet's glosses
under optimizers of libnibble: one run of bench/quality_optimizer.py."""
import dataclasses
import importlib.util
import math
import os
import time

import torch
from torch import nn
from torch.nn import functional

from . import environment, nibble_api

WIDTH, LAYERS, HEADS, CONTEXT, BATCH = 128, 4, 4, 128, 8
WARM_UP = 20
HELD_OUT_WINDOWS, LOOKS, LOOK_WINDOWS = 512, 5, 32  # at the end; on the way, and how wide
MAX_NORM = 1.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """One row of the table."""
    name: str
    states: str = "fp32"
    weights: str = "fp32"
    mode: str = "default"
    rate: float = 2e-3
    perturb: float = 0.0  # relative change of the initial weights: what chance alone does
    tail: float = 0.0  # sigma of a log-normal factor on every element of every gradient
    clip: bool = True


class Block(nn.Module):
    """Attention and a feed-forward part, both behind a norm."""

    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.out = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x):
        batch, length, _ = x.shape
        query, key, value = (part.view(batch, length, HEADS, -1).transpose(1, 2)
                             for part in self.qkv(self.norm1(x)).chunk(3, dim=-1))
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        return x + self.down(functional.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Next character, by a head of its own (not tied), so that its states are quantised too."""

    def __init__(self, characters):
        super().__init__()
        self.embed = nn.Embedding(characters, WIDTH)
        self.position_embed = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, characters, bias=False)
        for name, weights in self.named_parameters():
            if weights.dim() == 2:
                deep = name.endswith(("out.weight", "down.weight"))
                nn.init.normal_(weights, 0, 0.02 / math.sqrt(2 * LAYERS) if deep else 0.02)

    def forward(self, ids):
        x = self.embed(ids) + self.position_embed.weight[:ids.shape[1]]
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def read_text(wordnet, train=40000, held_out=4000):
    """(training ids, held-out ids, number of characters): lines "word: gloss", none in both."""
    path = environment.ROOT / "examples" / "quickstart" / "make_dataset.py"
    spec = importlib.util.spec_from_file_location("make_dataset", path)
    dataset = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(dataset)
    parts = dataset.choose(dataset.read_synsets(os.fspath(wordnet)), train, held_out)
    texts = ["".join("%s: %s\n" % (words[0], gloss) for _, _, words, gloss in part)
             for part in parts]
    known = {char: number for number, char in enumerate(sorted(set(texts[0])))}
    return *(torch.tensor([known.get(char, 0) for char in text]) for text in texts), len(known)


def windows(ids, starts):
    """(inputs, targets)"""
    index = starts[:, None] + torch.arange(CONTEXT + 1)
    piece = ids[index]
    return piece[:, :-1], piece[:, 1:]


def loss_of(model, inputs, targets):
    """Mean cross-entropy in nats."""
    return functional.cross_entropy(model(inputs).flatten(0, 1), targets.flatten())


def held_out_loss(model, ids, count=HELD_OUT_WINDOWS):
    """Over the same windows for every run."""
    starts = torch.linspace(0, len(ids) - CONTEXT - 2, count).long()
    with torch.no_grad():
        losses = [loss_of(model, *windows(ids, part)) for part in starts.split(32)]
    return torch.stack(losses).mean().item()


def schedule(step, steps, rate):
    """Linear warm-up, then a cosine to a twentieth."""
    if step < WARM_UP:
        return rate * (step + 1) / WARM_UP
    share = (step - WARM_UP) / max(steps - WARM_UP, 1)
    return rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * share)))


class Weights:
    """A model's parameters as the optimizer keeps them: themselves, or bf16 beside them.

    The forward pass is in fp32 from what is kept, so that runs differ in the optimizer alone.
    """

    def __init__(self, library, model, setting, seed):
        self.optimizer = nibble_api.Optimizer(
            library, rule="adamw", state_format=setting.states, weight_format=setting.weights,
            mode=setting.mode, learning_rate=setting.rate, beta2=0.99, weight_decay=0.01,
            seed=seed)
        self.params = list(model.parameters())
        self.kept = []
        for name, param in model.named_parameters():
            param.grad = torch.zeros_like(param)
            data = param.data if setting.weights == "fp32" else param.data.bfloat16()
            self.kept.append(data)
            self.optimizer.add(name, data, torch.float32)
        clip = {"max_grad_norm": MAX_NORM} if setting.clip else {}
        self.desc = self.optimizer.step_desc([param.grad for param in self.params], **clip)
        self.publish()

    def publish(self):
        """What is kept becomes what the model computes with."""
        for param, data in zip(self.params, self.kept):
            if data.dtype != param.dtype:
                param.data.copy_(data)

    def step(self, rate):
        """One step with the gradients that lie in .grad."""
        self.optimizer.set_hyper("learning_rate", rate)
        self.optimizer.step(self.desc)
        self.publish()

    def quantised(self):
        """How many of the elements have states in another format than fp32."""
        total = sum(param.numel() for param in self.params)
        low = sum(param.numel() for param, (_, states, _, _)
                  in zip(self.params, self.optimizer.infos()) if states != "fp32")
        return low / total


def perturb(model, amount):
    """Relative noise on the initial weights."""
    generator = torch.Generator().manual_seed(99)
    with torch.no_grad():
        for param in model.parameters():
            param *= 1 + amount * torch.empty_like(param).normal_(generator=generator)


def make_heavy(params, sigma, generator):
    """Multiplies every element of every gradient by exp(sigma * normal): same sign, wild scale."""
    for param in params:
        factor = torch.empty_like(param).normal_(0, sigma, generator=generator).exp_()
        param.grad.mul_(factor)


def run(library, data, setting, seed, steps):
    """Trains once: {name, seed, final held-out loss, looks on the way, ...}."""
    train, held_out, characters = data
    torch.manual_seed(seed)
    model = Transformer(characters)
    if setting.perturb:
        perturb(model, setting.perturb)
    weights = Weights(library, model, setting, seed)
    batches = torch.Generator().manual_seed(1000 + seed)
    tails = torch.Generator().manual_seed(2000 + seed)
    looks, begin, refused = [held_out_loss(model, held_out, LOOK_WINDOWS)], time.perf_counter(), 0
    for step in range(steps):
        starts = torch.randint(0, len(train) - CONTEXT - 1, (BATCH,), generator=batches)
        for param in weights.params:
            param.grad.zero_()
        loss_of(model, *windows(train, starts)).backward()
        if setting.tail:
            make_heavy(weights.params, setting.tail, tails)
        try:
            weights.step(schedule(step, steps, setting.rate))
        except nibble_api.NibbleError as error:
            if error.status != nibble_api.NON_FINITE:
                raise
            refused += 1
        if (step + 1) % max(steps // LOOKS, 1) == 0:
            looks.append(held_out_loss(model, held_out, LOOK_WINDOWS))
    result = {"name": setting.name, "seed": seed, "looks": looks,
              "final": held_out_loss(model, held_out),
              "refused_steps": refused, "quantised": weights.quantised(),
              "parameters": sum(param.numel() for param in weights.params),
              "seconds": time.perf_counter() - begin}
    weights.optimizer.close()
    return result
