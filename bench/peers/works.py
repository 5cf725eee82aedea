# SPDX-License-Identifier: Apache-2.0
"""The works of bench/peers_optimizer.py: who stands beside whom, and what issue 4 asks for.

A work is a function (library, elements, rounds) that returns rows.
"""
import ctypes
import math
import sys

import torch

from . import contenders as c
from .nibble_api import quantizer
from .rounds import compare, measure

BF16 = torch.bfloat16
BNB_PARTS, AO_PARTS = 256, 25  # where the peer is fastest (research: one tensor is half as fast)
SMALL_TENSORS, SMALL_SIZE, SMALL_REPEATS = 2000, 1000, 20
FAST_ROUNDS, SLOW_ROUNDS = (85, math.inf), (0, 65)  # GB/s of the peer: two states of the machine


def attempt(make, *arguments):
    """A peer, or None with a line on stderr if it is not there or cannot be built."""
    try:
        return make(*arguments)
    except (ImportError, RuntimeError, OSError) as error:
        print("  left out: %s: %s" % (make.__name__, error), file=sys.stderr)
        return None


def present(*contenders):
    """Those that are there."""
    return [contender for contender in contenders if contender]


def fp32(library, elements, rounds):
    """fp32 weights and states: all run at the memory's speed."""
    problem = c.Problem(elements)
    ours, looking = c.ours(library, problem, "fp32")
    peers = present(attempt(c.torch_fused, problem), attempt(c.deepspeed, problem))
    seconds = measure([ours, looking, *peers], rounds)
    rows = [compare("AdamW fp32", ours, peer, seconds, 0.95) for peer in peers]
    return rows + [compare("AdamW fp32, finite check", looking, peer, seconds) for peer in peers]


def bf16(library, elements, rounds, states):
    """bf16 weights and gradients; like for like is rounding to nearest, which loses updates."""
    problem = c.Problem(elements)
    nearest, looking = c.ours(library, problem, states, "bf16_nearest")
    stochastic, _ = c.ours(library, problem, states, "bf16_stochastic")
    peer = attempt(c.deepspeed, problem, BF16, states)
    seconds = measure([nearest, looking, stochastic, *present(peer)], rounds)
    if not peer:
        return []
    work = "AdamW bf16 weights, %s states" % states
    return [compare(work + ", nearest", nearest, peer, seconds, 0.95),
            compare(work + ", nearest, finite check", looking, peer, seconds),
            compare(work + ", stochastic", stochastic, peer, seconds)]


def bf16_fp32_states(library, elements, rounds):
    """bf16 weights, fp32 states"""
    return bf16(library, elements, rounds, "fp32")


def bf16_bf16_states(library, elements, rounds):
    """bf16 weights, bf16 states"""
    return bf16(library, elements, rounds, "bf16")


def low_bit(library, elements, rounds):
    """fp32 weights and quantised states beside the fused fp32 step, and among themselves."""
    problem = c.Problem(elements)
    int8, looking = c.ours(library, problem, "int8")
    int8_log, _ = c.ours(library, problem, "int8_log")
    int4, _ = c.ours(library, problem, "int4")
    fused = c.torch_fused(problem)
    avx512 = c.on_isa(library, int8, "avx512")
    avx2 = c.on_isa(library, int8, "avx2") if avx512 else None
    seconds = measure([int8, looking, int8_log, int4, *present(avx512, avx2), fused], rounds)
    rows = [compare("AdamW int8, all rounds", int8, fused, seconds),
            compare("AdamW int8, rounds of the peer at >= 85 GB/s", int8, fused, seconds, 1.0, 1.3,
                    FAST_ROUNDS),
            compare("AdamW int8, rounds of the peer at <= 65 GB/s", int8, fused, seconds, 1.35,
                    1.6, SLOW_ROUNDS),
            compare("AdamW int8, finite check", looking, fused, seconds),
            compare("AdamW int8_log", int8_log, fused, seconds),
            compare("AdamW int4", int4, fused, seconds),
            compare("AdamW int4", int4, int8, seconds, 1.0)]
    if avx2:
        rows.append(compare("AdamW int8 on AVX2", avx2, avx512, seconds, 0.4, 0.6))
    return rows


def int8_bitsandbytes(library, elements, rounds):
    """int8 states; both over 256 tensors, with which bitsandbytes is twice as fast as with one."""
    problem = c.Problem(elements, BNB_PARTS)
    ours, looking = c.ours(library, problem, "int8")
    peer = attempt(c.bitsandbytes8, problem)
    seconds = measure([ours, looking, *present(peer)], rounds)
    work = "AdamW int8, %d tensors" % BNB_PARTS
    return [compare(work, ours, peer, seconds, 30),
            compare(work + ", finite check", looking, peer, seconds)] if peer else []


def int4_torchao(library, elements, rounds):
    """int4 states; both over 25 tensors, with which torchao is twice as fast as with one."""
    problem = c.Problem(elements, AO_PARTS, multiple=128)
    ours, _ = c.ours(library, problem, "int4")
    peer = attempt(c.torchao4, problem)
    seconds = measure([ours, *present(peer)], rounds)
    return [compare("AdamW int4, %d tensors" % AO_PARTS, ours, peer, seconds)] if peer else []


def offload(library, elements, rounds):
    """What offload runs: bf16 weights by stochastic rounding and quantised states, beside
    DeepSpeed's two bf16 steps."""
    problem = c.Problem(elements)
    pairs = [c.ours(library, problem, states, "bf16_stochastic") for states in ("int8", "int4")]
    peers = present(*[attempt(c.deepspeed, problem, BF16, states) for states in ("fp32", "bf16")])
    seconds = measure([each for pair in pairs for each in pair] + peers, rounds)
    rows = []
    for states, (trusting, looking) in zip(("int8", "int4"), pairs):
        work = "AdamW bf16 stochastic, %s states" % states
        rows += [compare(work, trusting, peer, seconds, None, 1.0) for peer in peers]
        rows += [compare(work + ", finite check", looking, peer, seconds) for peer in peers]
    return rows


def check_round_trip(decode, source):
    """Error of a decoded tensor relative to the source; raises if it is more than int8's."""
    error = ((decode() - source).square().mean() / source.square().mean()).sqrt().item()
    if not error < 0.03:
        raise RuntimeError("wrong work: round trip off by %.3g" % error)
    return error


def blockwise(library, elements, rounds):
    """Quantise and dequantise in blocks of 256, signed dynamic map.

    bitsandbytes twice: its public function, which allocates the result in each call, and its C
    entry over buffers that are there already, as ours are.
    """
    import bitsandbytes
    from bitsandbytes.backends.cpu.ops import lib
    from bitsandbytes.functional import create_dynamic_map, get_ptr
    source = torch.empty(elements).normal_(generator=torch.Generator().manual_seed(1))
    out = torch.zeros_like(source)
    codes, scales, quantize, dequantize = quantizer(library, source, is_signed=1, block_size=256)
    table = create_dynamic_map()
    their_codes, their_scales = torch.zeros_like(codes), torch.zeros_like(scales)

    def their_c(name, first, last):
        getattr(lib, name)(get_ptr(table), get_ptr(first), get_ptr(their_scales), get_ptr(last),
                           ctypes.c_longlong(256), ctypes.c_longlong(elements))

    def ours_decoded():
        quantize()
        dequantize(out)
        return out

    def public_decoded():
        state = bitsandbytes.functional.quantize_blockwise(source, blocksize=256)
        return bitsandbytes.functional.dequantize_blockwise(*state)

    def c_decoded():
        their_c("cquantize_blockwise_cpu_fp32", source, their_codes)
        their_c("cdequantize_blockwise_cpu_fp32", their_codes, out)
        return out

    def contender(name, turn, decoded=None):
        return c.Contender(name, turn, elements, 5 + 4 / 256,
                           check=decoded and (lambda: check_round_trip(decoded, source)))

    quantisers = [
        contender("nibble quantise", quantize, ours_decoded),
        contender("bitsandbytes quantise",
                  lambda: bitsandbytes.functional.quantize_blockwise(source, blocksize=256),
                  public_decoded),
        contender("bitsandbytes quantise, C entry",
                  lambda: their_c("cquantize_blockwise_cpu_fp32", source, their_codes), c_decoded)]
    dequantisers = [
        contender("nibble dequantise", lambda: dequantize(out)),
        contender("bitsandbytes dequantise", lambda: bitsandbytes.functional.dequantize_blockwise(
            their_codes, absmax=their_scales, code=table, blocksize=256)),
        contender("bitsandbytes dequantise, C entry",
                  lambda: their_c("cdequantize_blockwise_cpu_fp32", their_codes, out))]
    seconds = measure(quantisers + dequantisers, rounds)
    rows = []
    for (first, *others), asked in ((quantisers, 10), (dequantisers, 5)):
        work = "int8 block 256, " + first.name.split()[1]
        rows += [compare(work, first, others[0], seconds, asked),
                 compare(work, first, others[1], seconds)]
    return rows


def small_tensors(library, _, rounds):
    """Thousands of small tensors in one call at about the cost of one pass, both forced to int8."""
    def repeated(problem, name):
        contender, _ = c.ours(library, problem, "int8")
        step = contender.turn

        def turn():
            for _ in range(SMALL_REPEATS):
                step()

        contender.name, contender.turn = name, turn
        contender.elements *= SMALL_REPEATS
        return contender

    many = c.Problem(SMALL_TENSORS * SMALL_SIZE, SMALL_TENSORS)
    one = c.Problem(many.elements)
    contenders = [repeated(many, "nibble, %d tensors" % SMALL_TENSORS),
                  repeated(one, "nibble, one tensor")]
    seconds = measure(contenders, rounds)
    work = "AdamW int8, %d tensors of %d" % (SMALL_TENSORS, many.elements // SMALL_TENSORS)
    return [compare(work, *contenders, seconds, 0.5)]


WORKS = {function.__name__: function for function in (
    fp32, bf16_fp32_states, bf16_bf16_states, low_bit, int8_bitsandbytes, int4_torchao, offload,
    blockwise, small_tensors)}
