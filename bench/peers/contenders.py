# SPDX-License-Identifier: Apache-2.0
"""The contenders of bench/peers_optimizer.py: each takes the same AdamW step of the same problem.

Imports of peers are inside: one that is not installed costs its own rows only.
"""
import dataclasses

import torch

from . import nibble_api

HYPER = {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
OURS = {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
CHECK_STEPS = 3
SAMPLES = 1 << 20
# Bytes an element that a step must move: read and write weights, read the gradient, read and write
# two states with their scales.
STATE_BYTES = {"fp32": 16.0, "bf16": 8.0, "int8": 4 + 16 / 256, "int8_log": 4 + 16 / 256,
               "int4": 2 + 16 / 128}


def bytes_per_element(weights, states):
    """Traffic of one step, for weights of a dtype and gradients of the same."""
    return 3 * weights.itemsize + STATE_BYTES[states]


class Problem:
    """Weights, gradients and what AdamW in double precision makes of a sample of them.

    `elements` split into `parts` equal tensors, of a multiple of `multiple` elements (torchao
    keeps fp32 states where a block would be short): what a peer does best with.
    """

    def __init__(self, elements, parts=1, multiple=1, seed=1):
        size = max(elements // parts // multiple, 1) * multiple
        self.elements, self.parts = size * parts, parts
        generator = torch.Generator().manual_seed(seed)
        self.weights = torch.empty(self.elements).normal_(0, 0.02, generator=generator)
        self.grads = {torch.float32: torch.empty(self.elements).normal_(0, 1e-3,
                                                                        generator=generator)}
        stride = max(self.elements // SAMPLES, 1)
        if stride > 1:
            stride |= 1  # every lane of a block and every thread's share are met
        self.sample = torch.cat([torch.arange(0, self.elements, stride),
                                 torch.tensor([self.elements - 1])])
        self._expected = {}

    def grad(self, dtype):
        """The gradients, one buffer for all contenders."""
        if dtype not in self.grads:
            self.grads[dtype] = self.grads[torch.float32].to(dtype)
        return self.grads[dtype]

    def new_weights(self, dtype):
        """A contender's own copy."""
        return self.weights.to(dtype, copy=True)

    def split(self, flat):
        """The parts as views."""
        return list(flat.view(self.parts, -1).unbind(0))

    def start(self, dtype):
        """The sampled weights before the first step."""
        return self.weights[self.sample].to(dtype).double()

    def expected(self, dtype):
        """The sampled weights after CHECK_STEPS steps of AdamW (Loshchilov and Hutter, 2019)."""
        if dtype not in self._expected:
            weights, grad = self.start(dtype), self.grad(dtype)[self.sample].double()
            first, second = torch.zeros_like(weights), torch.zeros_like(weights)
            (beta1, beta2), rate = HYPER["betas"], HYPER["lr"]
            for step in range(1, CHECK_STEPS + 1):
                weights *= 1 - rate * HYPER["weight_decay"]
                first.lerp_(grad, 1 - beta1)
                second.lerp_(grad * grad, 1 - beta2)
                root = (second / (1 - beta2 ** step)).sqrt_().add_(HYPER["eps"])
                weights -= rate / (1 - beta1 ** step) * first / root
            self._expected[dtype] = weights
        return self._expected[dtype]


@dataclasses.dataclass
class Contender:
    """One column of a round. `turn()` is what is timed; it does `elements` elements of work."""
    name: str
    turn: object
    elements: int
    bytes_per_element: float
    prepare: object = None  # called before each turn, not timed
    check: object = None  # () -> error relative to the movement; raises if the work is wrong


def check_movement(problem, weights, tolerance):
    """Relative RMS error of the weights' movement against double precision; raises above it."""
    before, after = problem.start(weights.dtype), problem.expected(weights.dtype)
    now = weights[problem.sample].double()
    error = ((now - after).square().mean() / (after - before).square().mean()).sqrt().item()
    still = (now == before).double().mean().item()
    if not error <= tolerance or still > 0.02:
        raise RuntimeError("wrong work: movement off by %.3g (allowed %.3g), %.3g did not move"
                           % (error, tolerance, still))
    return error


def checked(problem, name, step, weights, states, tolerance, **fields):
    """A contender whose first CHECK_STEPS steps are looked at."""
    def check():
        for _ in range(CHECK_STEPS):
            step()
        return check_movement(problem, weights, tolerance)

    return Contender(name, step, problem.elements, bytes_per_element(weights.dtype, states),
                     check=check, **fields)


# What three steps of each kind may be off: rounding of the weights, and of the states.
TOLERANCE = {"fp32": 1e-3, "bf16": 0.01, "int8": 0.1, "int8_log": 0.1, "int4": 0.6}
BF16_TOLERANCE = 0.1


def tolerance_of(dtype, states):
    """See TOLERANCE."""
    return max(TOLERANCE[states], BF16_TOLERANCE if dtype == torch.bfloat16 else 0)


def ours(library, problem, states="int8", weight_format="fp32"):
    """Two contenders over one optimizer: told that gradients are finite, as peers assume, and the
    default, which looks first."""
    dtype = torch.float32 if weight_format == "fp32" else torch.bfloat16
    weights, grads = problem.new_weights(dtype), problem.split(problem.grad(dtype))
    optimizer = nibble_api.Optimizer(library, rule="adamw", state_format=states,
                                     weight_format=weight_format, seed=1, **OURS)
    for index, part in enumerate(problem.split(weights)):
        optimizer.add("w%d" % index, part, dtype, state_format=states)
    for _, got, _, _ in optimizer.infos():
        assert got == states, "asked for %s states, got %s" % (states, got)
    trusting = optimizer.step_desc(grads, grads_are_finite=1)
    looking = optimizer.step_desc(grads)
    name = "nibble " + states + ("" if weight_format == "fp32" else ", " + weight_format)
    result = checked(problem, name, lambda: optimizer.step(trusting), weights, states,
                     tolerance_of(dtype, states), prepare=lambda: library.set_isa("auto"))
    second = Contender(name + ", finite check", lambda: optimizer.step(looking), problem.elements,
                       result.bytes_per_element, result.prepare)
    return result, second


def on_isa(library, contender, isa):
    """The same optimizer on another instruction set; None if this processor lacks it."""
    try:
        library.set_isa(isa)
    except nibble_api.NibbleError:
        return None
    finally:
        library.set_isa("auto")
    return dataclasses.replace(contender, name="%s, %s" % (contender.name, isa), check=None,
                               prepare=lambda: library.set_isa(isa))


def peer(problem, name, make, dtype, states):
    """An optimizer of PyTorch's kind: make(params) with gradients already there."""
    weights = problem.new_weights(dtype)
    params = [torch.nn.Parameter(part) for part in problem.split(weights)]
    for param, grad in zip(params, problem.split(problem.grad(dtype))):
        param.grad = grad
    optimizer = make(params)
    return checked(problem, name, optimizer.step, weights, states, tolerance_of(dtype, states))


def torch_fused(problem):
    """torch.optim.AdamW(fused=True): one pass over fp32 weights and states."""
    return peer(problem, "torch fused", lambda params: torch.optim.AdamW(
        params, fused=True, **HYPER), torch.float32, "fp32")


def deepspeed(problem, dtype=torch.float32, states="fp32"):
    """DeepSpeedCPUAdam, compiled for this processor by its own build."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam
    kind = "fp32" if dtype == torch.float32 else "bf16, %s states" % states
    return peer(problem, "DeepSpeed CPUAdam " + kind, lambda params: DeepSpeedCPUAdam(
        params, adamw_mode=True, fp32_optimizer_states=states == "fp32", **HYPER), dtype, states)


def bitsandbytes8(problem):
    """bitsandbytes' AdamW8bit on the CPU."""
    import bitsandbytes
    return peer(problem, "bitsandbytes AdamW8bit", lambda params: bitsandbytes.optim.AdamW8bit(
        params, **HYPER), torch.float32, "int8")


def torchao4(problem):
    """torchao's AdamW4bit, compiled by torch.compile as it does by itself."""
    from torchao.optim import AdamW4bit
    return peer(problem, "torchao AdamW4bit", lambda params: AdamW4bit(params, **HYPER),
                torch.float32, "int4")
