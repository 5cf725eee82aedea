# SPDX-License-Identifier: Apache-2.0
"""torch_adapter_oracle.py: what is refused by name, what is fixed at construction, and which of
bitsandbytes' names there are."""
import copy
import inspect

import bitsandbytes.optim
import torch

import nibble_torch
from torch_adapter_common import apart, check, gradients, parameters, refused, run, same_bits


def refusals():
    plain = lambda *shape, **k: torch.nn.Parameter(torch.ones(*shape, **k))
    make = nibble_torch.AdamW
    for dtype, words in ((torch.float16, "float16"), (torch.float64, "float64"),
                         (torch.complex64, "complex64")):
        refused("%s parameters" % dtype, lambda: make([plain(4, dtype=dtype)]), words)
    refused("a transposed parameter",
            lambda: make([torch.nn.Parameter(torch.ones(4, 3).t())]), "not contiguous")
    refused("channels_last", lambda: make([torch.nn.Parameter(
        torch.ones(2, 3, 4, 4).contiguous(memory_format=torch.channels_last))]), "not contiguous")
    refused("meta tensors", lambda: make([plain(4, device="meta")]), "device meta")
    refused("a lazy module", lambda: make(torch.nn.LazyLinear(3).parameters()), "lazy")
    p = plain(4, 4)
    p.grad = torch.eye(4).to_sparse()
    refused("sparse gradients", make([p]).step, "sparse")
    q = plain(8)
    moved = make([q])
    q.data = torch.ones(9)
    q.grad = torch.ones(9)
    refused("a parameter that changed its size", moved.step, "made for 8 elements")
    for name in ("capturable", "differentiable"):
        refused("%s=True" % name, lambda: make([plain(4)], **{name: True}), name)
    refused("foreach with fused", lambda: make([plain(4)], foreach=True, fused=True), "both")
    make([plain(4)], foreach=None, fused=True)
    refused("centered=True", lambda: nibble_torch.RMSprop([plain(4)], centered=True), "centered")
    refused("is_paged=True", lambda: nibble_torch.AdamW8bit([plain(4)], is_paged=True), "is_paged")
    refused("Adam, amsgrad with L2", lambda: nibble_torch.Adam([plain(4)], amsgrad=True,
                                                               weight_decay=0.1), "amsgrad")
    refused("SGD8bit without momentum", lambda: nibble_torch.SGD8bit([plain(4)], 0.1), "momentum")
    refused("Muon on a vector", lambda: nibble_torch.Muon([plain(4)]), "matrices")
    refused("a negative lr", lambda: make([plain(4)], lr=-1.0), "learning_rate")
    refused("a block size of 100", lambda: nibble_torch.AdamW8bit([plain(4)], block_size=100),
            "block_size")
    refused("an unknown format", lambda: make([plain(4)], state_format="int5"), "int5")
    refused("an unknown hyper-parameter", lambda: make([plain(4)], beta9=1), "beta9")
    refused("a copy of an optimizer", lambda: copy.deepcopy(make([plain(4)])), "state_dict")
    sound = plain(4)
    late = make([sound])
    bad = {"params": [plain(3, dtype=torch.float64)]}
    refused("a bad late group", lambda: late.add_param_group(bad), "float64")
    sound.grad = torch.ones(4)
    late.step()
    check("  after which the optimizer still steps", len(late.param_groups) == 1
          and late.state[sound]["step"] == 1)
    from torch._subclasses.fake_tensor import FakeTensorMode
    with FakeTensorMode():  # has a device and no memory
        refused("a fake tensor", lambda: make([torch.empty(4, device="cuda", requires_grad=True)]),
                "FakeTensor")
    sharded()


    refused("a negated view", lambda: make([torch.nn.Parameter(torch._neg_view(torch.ones(4)))]),
            "negated view")
    kind = type("Marked", (torch.Tensor,), {})
    refused("a tensor subclass", lambda: make([torch.nn.Parameter(
        torch.ones(4).as_subclass(kind))]), "is a Marked, a tensor subclass")
    refused("a name with NUL", lambda: make([("a\0b", plain(4))]), "NUL")
    for bad in ("bogus", "fp32", "int8_stochastic"):
        for dtype in (torch.float32, torch.bfloat16):
            refused("weight_format=%r for %s" % (bad, dtype), lambda: make(
                [plain(4, dtype=dtype)], weight_format=bad), "weight_format=%r; there are" % bad)


def fixed_options():
    changes = [("nonfinite", "propagate"), ("state_format", "int4"), ("mode", "bnb"),
               ("weight_format", "bf16_master"), ("formats", {"*": "fp8"}), ("block_size", 64),
               ("decay", "after"), ("seed", 3), ("min_quantized_elements", 1), ("amsgrad", True)]
    for key, value in changes:
        params = parameters()
        optimizer = nibble_torch.AdamW([{"params": params[:2]}, {"params": params[2:]}])
        run(optimizer, params, 0, 1)
        before = [p.detach().clone() for p in params]
        optimizer.param_groups[1][key] = value
        gradients(params, 1)
        words = "rule was 'adamw'" if key == "amsgrad" else "group 1: %s was" % key
        refused("%s changed later" % key, optimizer.step, words)
        check("  nothing has moved", same_bits(params, before))
    params, other = parameters(), parameters()
    pair = []
    for module, own in ((nibble_torch, params), (torch.optim, other)):
        optimizer = module.AdamW(own)
        run(optimizer, own, 0, 3)
        optimizer.param_groups[0].update(maximize=True, lr=1e-2, betas=(0.5, 0.6))
        pair.append(run(optimizer, own, 3, 6))
    check("maximize, lr and betas changed later", apart(*pair), 1.0)

    p, q = (torch.nn.Parameter(torch.ones(50)) for _ in range(2))
    p.grad = torch._neg_view(torch.ones(50))
    q.grad = -torch.ones(50)
    nibble_torch.SGD([p], lr=0.1).step(), torch.optim.SGD([q], lr=0.1).step()
    check("a gradient that is a negated view", apart([p], [q]), 1.0)


def every_name_of_bitsandbytes():
    for name, theirs in inspect.getmembers(bitsandbytes.optim, inspect.isclass):
        if name == "GlobalOptimManager":
            continue
        make = getattr(nibble_torch, name, None)
        check("bitsandbytes.optim.%s is known" % name, make is not None)
        required = [0.01] if name.startswith(("SGD", "LARS")) else []
        options = {"momentum": 0.9} if name.startswith("SGD") else {}
        p = [torch.nn.Parameter(torch.ones(8192))]
        if name.startswith(("Paged", "LARS", "PytorchLARS")):
            refused(name, lambda: make(p, *required), "use %s" % name[5:] if name[0] == "P"
                    and "LARS" not in name else "LAMB", NotImplementedError)
            continue
        optimizer = make(p, *required, **options)
        bits = 8 if name.endswith("8bit") else 32
        check("  its states", optimizer.report()[0]["format"] == {8: "int8", 32: "fp32"}[bits])
        if name in ("Lion", "AdEMAMix", "LAMB"):
            signature = inspect.signature(theirs).parameters
            ours = inspect.signature(make).parameters
            check("  its arguments, in order", list(ours)[:len(signature)] == list(signature))
            small = make(p, *required, optim_bits=8)
            check("  optim_bits=8", small.report()[0]["format"] == "int8")
            refused("  optim_bits=4", lambda: make(p, optim_bits=4), "optim_bits=4")


def sharded():
    import torch.distributed as dist
    from torch.distributed.tensor import DeviceMesh, Shard, distribute_tensor
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    mesh = DeviceMesh("cpu", [0])
    p = torch.nn.Parameter(distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)]))
    refused("a DTensor", lambda: nibble_torch.AdamW([p]), "sharded (DTensor")
    dist.destroy_process_group()
