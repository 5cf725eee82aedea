# SPDX-License-Identifier: Apache-2.0
"""torch_adapter_oracle.py: trajectories against torch.optim, bitsandbytes and torchao."""
import os

import bitsandbytes
import safetensors.torch
import torch
import torchao.optim

import nibble_torch
from torch_adapter_common import (STEPS, TORCH_CASES, apart, arguments, check, eager_torchao,
                                  gradients, parameters, run)


def drop_ins_of_torch():
    for name, arguments_ in TORCH_CASES:
        pair = []
        for module in (nibble_torch, torch.optim):
            params = parameters()
            pair.append(run(getattr(module, name)(params, **arguments_), params))
        check("torch.optim.%s(%s), 30 steps, in units of 1e-6 + 1e-5 |p|"
              % (name, ", ".join("%s=%s" % item for item in arguments_.items())),
              apart(*pair), 1.0)
    params = parameters()
    control = run(torch.optim.AdamW(params, eps=1e-5), params)
    reference = parameters()
    run(nibble_torch.AdamW(reference), reference)
    check("control: AdamW with eps 1e-5 is told apart", apart(reference, control), at_least=1.0)


def orthogonalised(x, steps=5):
    """torch.optim.Muon's iteration in float64."""
    x = x.double()
    x = x.T if x.shape[0] > x.shape[1] else x
    y = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = y @ y.T
        y = 3.4445 * y + (-4.7750 * gram + 2.0315 * gram @ gram) @ y
    return y


def muon():
    """PyTorch iterates in bfloat16, so against it loosely, and tightly against float64."""
    shapes = ((96, 64), (64, 96))
    for arguments_ in ({}, {"adjust_lr_fn": "match_rms_adamw", "nesterov": False}):
        pair = []
        for module in (nibble_torch, torch.optim):
            params = parameters(shapes)
            pair.append(run(module.Muon(params, lr=0.02, **arguments_), params))
        moved = max((a - b).abs().max().item() for a, b in zip(pair[1], parameters(shapes)))
        off = max((a - b).abs().max().item() for a, b in zip(*pair))
        check("torch.optim.Muon(%s), 30 steps, relative to the move" % (arguments_ or ""),
              off / moved, 0.05)
    params = parameters(shapes)
    run(nibble_torch.Muon(params, lr=0.02), params)
    exact = [p.detach().double() for p in parameters(shapes)]
    momenta = [torch.zeros_like(p) for p in exact]
    for step in range(STEPS):
        plain = parameters(shapes)
        gradients(plain, step)
        for i, p in enumerate(plain):
            g = p.grad.double()
            momenta[i] = 0.95 * momenta[i] + 0.05 * g
            x = orthogonalised(0.05 * g + 0.95 * momenta[i])
            x = x.T if g.shape[0] > g.shape[1] else x
            scale = max(1.0, g.shape[0] / g.shape[1]) ** 0.5
            exact[i] = exact[i] * (1 - 0.02 * 0.1) - 0.02 * scale * x
    check("Muon against float64, 30 steps, in units of 1e-6 + 1e-5 |p|", apart(params, exact), 10.0)


NOT_WELL_BEHAVED = (3, 5, 8, 11, 13, 16, 19)


def class_b(p, reference):
    """The golden README's class B figures over well-behaved blocks of 256."""
    keep = torch.ones(len(p) // 256, dtype=torch.bool)
    keep[list(NOT_WELL_BEHAVED)] = False
    error = (p - reference).view(-1, 256)[keep].abs().flatten()
    return error.square().mean().sqrt().item(), error.quantile(0.999).item(), error.max().item()


def bitsandbytes_class_b():
    inputs = os.path.join(arguments.golden, "opt_inputs.safetensors")
    if not os.path.exists(inputs):
        check("golden inputs %s" % inputs, False)
        return
    data = safetensors.torch.load_file(inputs)
    truth = safetensors.torch.load_file(
        os.path.join(arguments.golden, "torch_adamw_default.safetensors"))["p.20"].flatten()

    def trajectory(make):
        p = torch.nn.Parameter(data["w0"].clone().flatten())
        optimizer = make([p])
        for g in data["g"]:
            p.grad = g.clone().flatten()
            optimizer.step()
        return p.detach()

    exact = trajectory(lambda p: nibble_torch.AdamW(p))
    check("AdamW on the golden inputs against the golden torch.optim.AdamW, max",
          (exact - truth).abs().max().item(), 1e-6)
    bars = (1.0e-4, 4e-4, 6e-4)
    for name, make in (("default", lambda p: nibble_torch.AdamW8bit(p)),
                       ("bnb", lambda p: nibble_torch.AdamW8bit(p, mode="bnb"))):
        figures = class_b(trajectory(make), truth)
        for figure, bar, what in zip(figures, bars, ("rms", "99.9 %", "max")):
            check("AdamW8bit (mode %s), class B %s" % (name, what), figure, bar)
    theirs = class_b(trajectory(lambda p: bitsandbytes.optim.AdamW8bit(p)), truth)
    print("        (bitsandbytes %s here: rms %.2g, 99.9 %% %.2g, max %.2g)"
          % ((bitsandbytes.__version__,) + theirs))
    control = class_b(trajectory(lambda p: nibble_torch.AdamWFp8(p)), truth)
    check("control: fp8 states miss class B, rms", control[0], at_least=bars[0])


LOW_BIT = [("Lion8bit", {"weight_decay": 0.1}), ("SGD8bit", {"lr": 0.01, "momentum": 0.9}),
           ("RMSprop8bit", {}), ("Adagrad8bit", {}), ("AdEMAMix8bit", {}), ("Adam8bit", {}),
           ("AdamW8bit", {"weight_decay": 0.1}), ("AdamW32bit", {"weight_decay": 0.1})]


def bitsandbytes_names():
    """Well-scaled gradients: the distance of the two libraries, relative to the move. Lion's sign
    may flip where a quantised momentum crosses zero, so its distance is a root mean square."""
    for name, arguments_ in LOW_BIT:
        pair = []
        for module in (nibble_torch, bitsandbytes.optim):
            params = parameters(((128, 64), (100,)))
            pair.append(run(getattr(module, name)(params, **arguments_), params))
        start = parameters(((128, 64), (100,)))
        off = torch.cat([(a - b).detach().flatten() for a, b in zip(*pair)]).square().mean().sqrt()
        move = torch.cat([(a - b).detach().flatten() for a, b in zip(pair[1], start)])
        check("bitsandbytes.optim.%s(%s), 30 steps, rms relative to the move"
              % (name, ", ".join("%s=%s" % item for item in arguments_.items())),
              (off / move.square().mean().sqrt()).item(), 1e-5 if "32" in name else 0.05)
    lamb()


def lamb():
    """bitsandbytes' LAMB8bit is plain Adam on the CPU, so against the paper's loop in float64."""
    for state_format, bar in (("fp32", 1e-5), ("int8", 0.02)):
        start = parameters(((128, 64), (100,)))
        params = parameters(((128, 64), (100,)))
        run(nibble_torch.LAMB8bit(params, lr=1e-2, weight_decay=0.1, state_format=state_format),
            params)
        exact = [p.detach().double() for p in start]
        m, v = ([torch.zeros_like(p) for p in exact] for _ in range(2))
        for step in range(STEPS):
            gradients(start, step)
            for i, p in enumerate(start):
                g = p.grad.double()
                m[i] = 0.9 * m[i] + 0.1 * g
                v[i] = 0.999 * v[i] + 0.001 * g * g
                root = (v[i] / (1 - 0.999 ** (step + 1))).sqrt()
                update = m[i] / (1 - 0.9 ** (step + 1)) / (root + 1e-8) + 0.1 * exact[i]
                exact[i] = exact[i] - 1e-2 * exact[i].norm() / update.norm() * update
        off = torch.cat([(a - b).detach().flatten() for a, b in zip(params, exact)])
        move = torch.cat([(a - b).detach().flatten() for a, b in zip(exact, start)])
        check("LAMB8bit (%s states) against float64, 30 steps, rms relative to the move"
              % state_format, (off.norm() / move.norm()).item(), bar)


def torchao_names():
    """In torchao's mode only roundings differ; ours has other ties, and no clip of small scales."""
    eager_torchao()
    for name, bar in (("AdamW8bit", 0.002), ("AdamW4bit", 0.002), ("AdamWFp8", 0.005)):
        for mode in ("torchao", "default"):
            pair = []
            for module, arguments_ in ((nibble_torch, {"mode": mode}), (torchao.optim, {})):
                params = parameters(((128, 64), (100,)))
                optimizer = getattr(module, name)(params, weight_decay=0.1, **arguments_)
                pair.append(run(optimizer, params))
            start = parameters(((128, 64), (100,)))
            off = torch.cat([(a - b).detach().flatten() for a, b in zip(*pair)])
            move = torch.cat([(a - b).detach().flatten() for a, b in zip(pair[1], start)])
            check("torchao.optim.%s, 30 steps, mode %s, rms relative to the move" % (name, mode),
                  (off.norm() / move.norm()).item(), 1e-3 if mode == "torchao" else bar)
