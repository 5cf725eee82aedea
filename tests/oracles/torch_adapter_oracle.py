# SPDX-License-Identifier: Apache-2.0
"""The PyTorch adapter against torch.optim, bitsandbytes and torchao:
torch_adapter_oracle.py [LIBNIBBLE.so] [--golden DIRECTORY]

LIBNIBBLE.so: instead of the library in the installed package (as NIBBLE_LIBRARY). The golden data
are where NIBBLE_GOLDEN_DIR says, or beside the repository (../shared/golden). Needs torch,
bitsandbytes, torchao and safetensors; exit status 1 if a check fails.
"""
import gc
import sys
import warnings

import torch

from torch_adapter_common import (STEPS, apart, check, gradients, parameters, refused, results, run,
                                  same_bits)
import nibble_torch
import torch_adapter_loads as loads
import torch_adapter_peers as peers
import torch_adapter_readme as readme
import torch_adapter_refusals as refusals
import torch_adapter_states as states


def around_the_step():
    """Groups, schedulers, closures, missing gradients, groups that join late."""
    def scenario(module, scheduler):
        params = parameters()
        optimizer = module.AdamW([
            {"params": params[:2], "lr": 5e-3},
            {"params": params[2:3], "weight_decay": 0.2, "betas": (0.7, 0.9)}])
        schedule = scheduler(optimizer)
        for step in range(STEPS):
            if step == 22:  # after the schedule, which knows its groups
                optimizer.add_param_group({"params": params[3:], "eps": 1e-4})
            optimizer.zero_grad()
            gradients(params[:len(params) if step >= 22 else 3], step)
            if step % 3 == 1:
                params[1].grad = None
            loss = optimizer.step(lambda: torch.ones(()) * step)
            assert loss.item() == step
            if step < 20:
                schedule.step()
        return params

    schedulers = {
        "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda t: 0.9 ** t),
        "CosineAnnealingLR": lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 25),
        "OneCycleLR, cycling beta1": lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, [1e-2, 2e-2], total_steps=40)}
    for name, scheduler in schedulers.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pair = [scenario(module, scheduler) for module in (nibble_torch, torch.optim)]
        check("groups, missing gradients, a late group, closure, %s" % name, apart(*pair), 1.0)

    params, other = parameters(), parameters()
    optimizer = nibble_torch.AdamW(params, lr=torch.tensor(1e-3))
    reference = torch.optim.AdamW(other, lr=1e-3)
    run(optimizer, params, 0, 5), run(reference, other, 0, 5)
    for p in params:
        p.data = p.data.clone()  # new storage, as module.to() makes
    gc.collect()
    optimizer.param_groups[0]["lr"].fill_(1e-2)
    reference.param_groups[0]["lr"] = 1e-2
    run(optimizer, params, 5, 10), run(reference, other, 5, 10)
    check("a tensor lr, and storage that is replaced between steps", apart(params, other), 1.0)

    p = torch.nn.Parameter(torch.ones(3))
    saved = (p * p).sum()
    p.grad = torch.ones(3)
    nibble_torch.SGD([p], lr=0.1).step()
    try:
        saved.backward()
        seen = False
    except RuntimeError as error:
        seen = "inplace operation" in str(error)
    check("autograd sees that the weights have changed in place", seen)


def nonfinite():
    params = parameters()
    optimizer = nibble_torch.AdamW([{"params": params[:2]}, {"params": params[2:]}])
    run(optimizer, params, 0, 2)
    before = [p.detach().clone() for p in params]
    gradients(params, 2)
    params[2].grad[0, 0] = float("nan")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.step()
    check("a NaN in one group: no group steps, one warning, one counted",
          same_bits(params, before) and len(caught) == 1 and optimizer.nonfinite_count == 1
          and optimizer.skipped_steps == 1)
    strict = nibble_torch.AdamW(params, nonfinite="raise")
    refused("nonfinite=\"raise\"", strict.step, "not finite", nibble_torch.NonFinite)
    spread = nibble_torch.AdamW(params, nonfinite="propagate")
    spread.step()
    check("nonfinite=\"propagate\": as torch.optim", params[2].isnan().sum().item() == 1)


def joined(p, correction):
    """The float32 that a bfloat16 and its 16 correction bits stand for."""
    upper = p.detach().view(-1).view(torch.int16).int() * 65536
    return (upper + correction.flatten().int()).view(torch.float32).view(p.shape)


def bfloat16():
    steps, lr = 300, 1e-4  # updates well below half a bf16 ulp of weights near 1
    exact = parameters(seed=3)
    rounded = [p.detach().bfloat16() for p in exact]
    exact = [torch.nn.Parameter(p.float()) for p in rounded]

    def drift(weight_format):
        """Of 300 steps along a fixed gradient, the mean move relative to that in fp32."""
        p = torch.nn.Parameter(torch.full((4096,), 1.0, dtype=torch.bfloat16))
        optimizer = nibble_torch.AdamW([p], lr=lr, weight_decay=0.0, weight_format=weight_format)
        for _ in range(steps):
            p.grad = torch.ones_like(p)
            optimizer.step()
        return (1 - p.detach().float().mean().item()) / (steps * lr), optimizer, p

    for weight_format, bar in (("bf16_master", 0.1), ("bf16_correction16", 0.1),
                               ("bf16_correction8", 0.1), ("bf16_stochastic", 0.1)):
        check("%s: mean move of 300 small steps, relative error" % weight_format,
              abs(drift(weight_format)[0] - 1), bar)
    check("control: bf16_nearest stands still", drift("bf16_nearest")[0], 0.01)
    _, optimizer, p = drift("bf16_master")
    check("bf16_master: the weights are the master's, rounded",
          torch.equal(optimizer.state[p]["master"].bfloat16(), p.detach()))
    check("the default for bfloat16 is bf16_stochastic, with bfloat16 gradients",
          nibble_torch.AdamW8bit([torch.nn.Parameter(rounded[0])]).report()[0]["weight_format"]
          == "bf16_stochastic")

    def trained(make, params):
        return run(make(params), params)

    for weight_format in ("bf16_master", "bf16_correction16"):
        ours = [torch.nn.Parameter(p.clone()) for p in rounded]
        optimizer = nibble_torch.AdamW(ours, weight_format=weight_format)
        theirs = [torch.nn.Parameter(p.clone().float()) for p in rounded]
        reference = torch.optim.AdamW(theirs)
        for step in range(STEPS):
            gradients(ours, step)
            for a, b in zip(ours, theirs):
                b.grad = a.grad.float()
            optimizer.step(), reference.step()
        kept = [optimizer.state[p]["master"] if weight_format == "bf16_master" else
                joined(p, optimizer.state[p]["correction"]) for p in ours]
        check("%s with bf16 gradients against fp32 torch.optim.AdamW on them" % weight_format,
              apart(kept, theirs), 1.0)

    p = torch.nn.Parameter(torch.ones(64, dtype=torch.bfloat16))
    optimizer = nibble_torch.AdamW([p], weight_format="bf16_master")
    with torch.no_grad():
        p.fill_(3.0)  # as loading a model after the optimizer was created
    p.grad = torch.ones_like(p)
    optimizer.step()
    check("a master is taken at the first step, not before", abs(p[0].item() - 3) < 0.1)
    with torch.no_grad():
        p.fill_(5.0)
    optimizer.refresh_masters()
    optimizer.step()
    check("refresh_masters() takes weights that were changed later", abs(p[0].item() - 5) < 0.1)


def reports():
    module = torch.nn.ModuleDict({"embed": torch.nn.Embedding(256, 64),
                                  "body": torch.nn.Linear(64, 128)})
    rows = {r["name"]: r for r in nibble_torch.AdamW8bit(
        module.named_parameters(), formats={"body.bias": "bf16"}).report()}
    check("report(): an embedding keeps fp32, a matrix int8, a pattern is obeyed", (
        rows["embed.weight"]["format"], rows["body.weight"]["format"], rows["body.bias"]["format"])
        == ("fp32", "int8", "bf16") and "embed" in rows["embed.weight"]["reason"])
    check("report(): bytes of 8192 int8 elements with two states",
          rows["body.weight"]["bytes"] == 2 * (8192 + 4 * 32))
    body = list(module["body"].parameters())
    formats = [(r["format"], r["block"]) for r in nibble_torch.AdamW8bit(
        [{"params": body[:1], "block_size": 64}, {"params": body[1:], "min_quantized_elements": 1},
         {"params": [torch.nn.Parameter(torch.zeros(0, 3))], "state_format": "bf16"}]).report()]
    check("report(): options by group", formats[:2] == [("int8", 64), ("int8", 256)])
    empty = [torch.nn.Parameter(torch.zeros(0, 3)), torch.nn.Parameter(torch.ones(3))]
    optimizer = run(nibble_torch.AdamW8bit(empty), empty)
    again = nibble_torch.AdamW8bit([torch.nn.Parameter(p.detach().clone()) for p in empty])
    again.load_state_dict(nibble_torch.AdamW8bit(empty).state_dict())
    check("a parameter without elements", optimizer[1].isfinite().all())
    generic = nibble_torch.Optimizer(parameters(), "ademamix", state_format="int4", lr=1e-3,
                                     betas=(0.9, 0.99, 0.999), alpha=3.0)
    run(generic, generic.param_groups[0]["params"], 0, 3)
    check("Optimizer(params, \"ademamix\", state_format=\"int4\")",
          generic.report()[0]["format"] == "int4")


def main():
    for part in (peers.drop_ins_of_torch, peers.muon, around_the_step, nonfinite,
                 peers.bitsandbytes_class_b, peers.bitsandbytes_names, peers.torchao_names,
                 bfloat16, states.round_trips, states.import_bitsandbytes, states.import_torchao,
                 states.import_torch, loads.before_the_first_step, loads.half_loaded, refusals.refusals,
                 refusals.fixed_options, refusals.every_name_of_bitsandbytes, reports,
                 readme.readme_commands):
        print("-- %s" % part.__name__.replace("_", " "))
        part()
    print("%d passed, %d failed" % (sum(results), len(results) - sum(results)))
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())