#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of tests/fuzz/corpus for the readers of src/formats; run again after a change of format.

Seeds are small and valid, so that the fuzzer starts behind the first checks, plus a few hostile ones."""
import json
import pathlib
import struct

ROOT = pathlib.Path(__file__).parent / "corpus"


def put(folder, name, content):
    directory = ROOT / folder
    directory.mkdir(parents=True, exist_ok=True)
    (directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def u32(x):
    return struct.pack("<I", x)


def u64(x):
    return struct.pack("<Q", x % 2**64)


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    return u64(len(s)) + s


def kv(key, type_, value):
    return text(key) + u32(type_) + value


def array(type_, count, data):
    return kv("arr", 9, u32(type_) + u64(count) + data)


def info(name, dims, type_, offset):
    return text(name) + u32(len(dims)) + b"".join(map(u64, dims)) + u32(type_) + u64(offset)


def gguf(keys=(), tensors=(), data=b"", version=3, counts=None, alignment=32):
    n_tensors, n_keys = counts or (len(tensors), len(keys))
    out = b"GGUF" + u32(version) + u64(n_tensors) + u64(n_keys) + b"".join(keys) + b"".join(tensors)
    return out + bytes(-len(out) % alignment) * bool(data) + data


def gguf_seeds():
    scalars = [kv("u8", 0, b"\x01"), kv("i8", 1, b"\xff"), kv("u16", 2, b"\1\2"), kv("i16", 3, b"\1\2"),
               kv("u32", 4, u32(7)), kv("i32", 5, u32(7)), kv("f32", 6, struct.pack("<f", 1.5)),
               kv("bool", 7, b"\x01"), kv("string", 8, text("llama")), kv("u64", 10, u64(9)),
               kv("i64", 11, u64(-9)), kv("f64", 12, struct.pack("<d", 2.5))]
    put("gguf", "empty", gguf())
    put("gguf", "scalars", gguf(scalars))
    put("gguf", "string_array", gguf([array(8, 2, text("a") + text("bc"))]))
    put("gguf", "bool_array", gguf([array(7, 2, b"\0\1")]))
    put("gguf", "f32_array", gguf([array(6, 2, struct.pack("<ff", 1, 2))]))
    block = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 8: (32, 34), 30: (1, 2)}
    tensors, data = [], b""
    for type_, (elements, size) in block.items():
        tensors.append(info(f"t{type_}", [elements * 2, 3], type_, len(data)))
        data += bytes(range(size * 6 % 256)) [:size * 6].ljust(size * 6, b"\x21")
        data += bytes(-len(data) % 32)
    put("gguf", "all_types", gguf(scalars[:1], tensors, data))
    put("gguf", "alignment_8", gguf([kv("general.alignment", 4, u32(8))], [info("w", [2], 0, 0)], bytes(8), alignment=8))
    put("gguf", "inf_scale", gguf([], [info("w", [32], 2, 0)], b"\x00\x7c" + bytes(16)))
    put("gguf", "hostile_wrap", gguf([], [info("w", [2**32, 2**32], 0, 0)], bytes(32)))
    put("gguf", "hostile_count", gguf(counts=(2**64 - 1, 2**64 - 1)))
    put("gguf", "hostile_array", gguf([array(0, 2**63, b"x")]))
    put("gguf", "hostile_nested", gguf([array(9, 1, u32(4) + u64(1) + u32(1))]))
    put("gguf", "hostile_overlap", gguf([], [info("a", [8], 0, 0), info("b", [8], 0, 0)], bytes(64)))
    put("gguf", "big_endian", b"GGUF" + struct.pack(">I", 3) + bytes(16))


def safetensors(header, data=b""):
    header = header if isinstance(header, bytes) else json.dumps(header).encode()
    return u64(len(header)) + header + data


def safetensors_seeds():
    sizes = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I8": 1, "BOOL": 1, "F8_E4M3": 1}
    header, end = {"__metadata__": {"format": "pt"}}, 0
    for dtype, size in sizes.items():
        header[dtype.lower()] = {"dtype": dtype, "shape": [2, 1], "data_offsets": [end, end + 2 * size]}
        end += 2 * size
    put("safetensors", "all_types", safetensors(header, bytes(end)))
    put("safetensors", "empty", safetensors(b"{}"))
    put("safetensors", "padded", safetensors(b"{}      "))
    put("safetensors", "scalar", safetensors({"s": {"dtype": "F32", "shape": [], "data_offsets": [0, 4]}}, bytes(4)))
    put("safetensors", "zero", safetensors({"z": {"dtype": "F32", "shape": [0, 5], "data_offsets": [0, 0]}}))
    put("safetensors", "hostile_hole", safetensors({"w": {"dtype": "U8", "shape": [1], "data_offsets": [1, 2]}}, bytes(2)))
    put("safetensors", "hostile_wrap", safetensors({"w": {"dtype": "U8", "shape": [2**32, 2**32], "data_offsets": [0, 0]}}))
    put("safetensors", "hostile_length", u64(2**64 - 1) + b"{}")
    put("safetensors", "hostile_twice", safetensors(b'{"w":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"w":{}}'))


def json_seeds():
    put("json", "types", '{"a":[1,-2,1.5e3,true,false,null],"b":{"c":"\\u00e9\\n\\ud83d\\ude00é"}}')
    put("json", "deep", "[" * 64 + "]" * 64)
    put("json", "too_deep", "[" * 65)
    put("json", "twice", '{"a":1,"\\u0061":2}')
    put("json", "huge", "[1e308,18446744073709551615,-9223372036854775808,1e999]")
    put("json", "nul", b"{}\0{}")
    put("json", "surrogate", '"\\ud800"')
    put("json", "not_utf8", b'"\xff"')


def manifest_seeds():
    digits = "2d06800538d394c2"
    manifest = {
        "format": "nibble-checkpoint", "version": 1, "library": "0.1.0",
        "components": {"adapter": {"file": "adapter.safetensors", "bytes": 120, "header": digits,
                                   "tensors": {"a": digits}}},
        "files": {"config.json": {"bytes": 2, "xxh3": digits}}, "extra": {"step": 1}, "xxh3": "0" * 16}
    put("checkpoint_manifest", "valid", json.dumps(manifest, indent=1) + "\n")
    put("checkpoint_manifest", "newer", json.dumps(manifest | {"version": 2}))
    put("checkpoint_manifest", "path", json.dumps(manifest | {"files": {"../x": {"bytes": 0, "xxh3": digits}}}))
    put("checkpoint_manifest", "types", json.dumps(manifest | {"components": {"a": {"file": 1}}}))
    put("checkpoint_manifest", "empty", "{}")


def optimizer_seeds():
    """`extra` of a checkpoint of the optimizer that optimizer_extra_fuzz.cc makes."""
    def states(first, second):
        return {"exp_avg": {"format": first, "signed": True}, "exp_avg_sq": {"format": second, "signed": False}}

    def param(shape, block, weights, formats):
        return {"rule": "adamw", "count": 300, "shape": shape, "block": block, "weights": weights,
                "weights_unset": weights == "bf16_master", "tensor_id": 7, "states": states(*formats)}

    params = {"vector": param([300], 256, "fp32", ("int8", "int8")),
              "matrix": param([4, 75], 128, "fp32", ("int4_rank1", "int4_rank1")),
              "narrow": param([300], 0, "bf16_master", ("fp32", "fp32"))}
    extra = {"kind": "optimizer", "version": 1, "step": 3, "mode": "default", "seed": 0, "params": params}

    def put_extra(name, changes=None, **of_matrix):
        matrix = params["matrix"] | of_matrix
        put("optimizer_extra", name, json.dumps(extra | {"params": params | {"matrix": matrix}} | (changes or {})))

    put_extra("valid")
    put_extra("other_block", block=64)
    put_extra("block_zero", block=0)
    put_extra("block_fraction", block=64.7)
    put_extra("block_huge", block=2**63 - 1)
    put_extra("block_negative", block=-5)
    put_extra("shape_other", shape=[75, 4])
    put_extra("shape_none", shape=[])
    put_extra("shape_types", shape=[4, "75"])
    put_extra("format_other", states=states("int8", "fp32"))
    put_extra("format_not_for_states", states=states("nf4", "fp4"))
    put_extra("states_list", states=[1, 2])
    put_extra("count_other", count=301)
    put_extra("step_wraps", {"step": 2**63 + 5})
    put_extra("step_true", {"step": True})
    put_extra("version_wraps", {"version": 2**32 + 1})
    put_extra("params_list", {"params": [1]})
    put("optimizer_extra", "list", "[]")


gguf_seeds()
safetensors_seeds()
optimizer_seeds()
json_seeds()
manifest_seeds()
