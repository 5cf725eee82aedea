#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Our readers and writers against the packages of the formats' authors.

usage: formats_oracle.py BUILD_DIRECTORY     (needs requirements-light.txt)

Random files written by the gguf and safetensors packages must decode to the same bits here; files written here must
read back equal there; damaged files must be refused here wherever the package refuses them."""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import gguf
import numpy as np
import safetensors
import safetensors.numpy

TYPES = ["F32", "F16", "BF16", "Q4_0", "Q4_1", "Q8_0"]
passed, failed = 0, 0


def check(condition, what):
    global passed, failed
    if condition:
        passed += 1
    else:
        failed += 1
        print(f"FAILED: {what}")


def dump(program, command, path, out):
    done = subprocess.run([program, command, path, out], capture_output=True, timeout=60)
    if done.returncode not in (0, 3):
        raise RuntimeError(f"{command} {path}: exit {done.returncode}: {done.stderr.decode()}")
    return done.returncode == 0, done.stdout.decode()


def random_weights(rng, shape):
    kind = rng.integers(4)
    values = rng.standard_normal(shape).astype(np.float32)
    if kind == 1:
        values *= np.float32(10.0) ** rng.integers(-6, 4, size=shape).astype(np.float32)
    elif kind == 2:
        values[:] = 0
    elif kind == 3:
        values = np.round(values * 3) / 3
    return values.astype(np.float32)


def write_gguf(path, rng):
    """A random file by the gguf package; returns its tensors as the package decodes them."""
    writer = gguf.GGUFWriter(path, "llama")
    keys = {"general.architecture": [8, "llama"]}
    for i in range(int(rng.integers(0, 6))):
        key, number = f"k{i}", int(rng.integers(0, 2**31))
        add, type_, value = [
            (writer.add_uint32, 4, number), (writer.add_int32, 5, -number), (writer.add_bool, 7, bool(number % 2)),
            (writer.add_string, 8, f"é{number}"), (writer.add_uint64, 10, number * 2**31),
            (writer.add_uint8, 0, number % 256), (writer.add_float64, 12, number / 7),
            (writer.add_array, 9, [f"s{j}" for j in range(number % 5 + 1)])][int(rng.integers(8))]
        add(key, value)
        keys[key] = [type_, value]
    expected = []
    for i in range(int(rng.integers(1, 8))):
        name = TYPES[int(rng.integers(len(TYPES)))]
        type_ = gguf.GGMLQuantizationType[name]
        shape = [int(n) for n in rng.integers(1, 4, size=int(rng.integers(0, 3)))] + [32 * int(rng.integers(1, 5))]
        raw = gguf.quants.quantize(random_weights(rng, shape), type_)
        writer.add_tensor(f"t{i}", raw, raw_dtype=type_)
        expected.append((f"t{i}", int(type_), shape[::-1], gguf.quants.dequantize(raw, type_).astype(np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return keys, expected


def same_reader(a, b):
    a, b = gguf.GGUFReader(a), gguf.GGUFReader(b)
    tensors = [[(t.name, int(t.tensor_type), t.shape.tolist(), t.data.tobytes()) for t in r.tensors] for r in (a, b)]
    return tensors[0] == tensors[1]


def gguf_cases(program, directory, rng):
    source, out, copy = (directory / n for n in ("a.gguf", "a.bin", "b.gguf"))
    for case in range(60):
        keys, expected = write_gguf(source, rng)
        accepted, report = dump(program, "gguf", source, out)
        check(accepted, f"gguf {case}: refused: {report}")
        if not accepted:
            continue
        summary = json.loads(report)
        check(all(summary["keys"].get(k) == v for k, v in keys.items()), f"gguf {case}: keys {summary['keys']} {keys}")
        listed = [(t["name"], t["type"], t["dims"]) for t in summary["tensors"]]
        check(listed == [e[:3] for e in expected], f"gguf {case}: tensors {listed}")
        decoded = b"".join(np.ascontiguousarray(e[3]).tobytes() for e in expected)
        check(out.read_bytes() == decoded, f"gguf {case}: decoded bits differ")
        accepted, report = dump(program, "copy-gguf", source, copy)
        check(accepted and same_reader(source, copy), f"gguf {case}: our copy differs: {report}")
    reader = gguf.GGUFReader(copy)
    check(reader.fields["general.architecture"].contents() == "llama", "gguf: our key is read back")


def write_safetensors(path, rng):
    dtypes = [np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.int8, np.uint64, np.uint32,
              np.uint16, np.uint8, np.bool_]
    tensors = {}
    for i in range(int(rng.integers(0, 8))):
        shape = [int(n) for n in rng.integers(0, 5, size=int(rng.integers(0, 4)))]
        dtype = np.dtype(dtypes[int(rng.integers(len(dtypes)))])
        raw = rng.integers(0, 2 if dtype == np.bool_ else 256, size=int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)
        tensors[f"té{i}"] = raw.view(dtype).reshape(shape)
    safetensors.numpy.save_file(tensors, path, metadata={"format": "np", "ключ": "\"\n"})
    return tensors


def safetensors_cases(program, directory, rng):
    source, out, copy = (directory / n for n in ("a.st", "a.bin", "b.st"))
    for case in range(60):
        tensors = write_safetensors(source, rng)
        accepted, report = dump(program, "safetensors", source, out)
        check(accepted, f"safetensors {case}: refused: {report}")
        if not accepted:
            continue
        summary = json.loads(report)
        check(summary["metadata"] == {"format": "np", "ключ": "\"\n"}, f"safetensors {case}: metadata")
        check({t["name"]: t["shape"] for t in summary["tensors"]} == {k: list(v.shape) for k, v in tensors.items()},
              f"safetensors {case}: shapes")
        ours = b"".join(tensors[t["name"]].tobytes() for t in summary["tensors"])
        check(out.read_bytes() == ours, f"safetensors {case}: bytes")
        accepted, report = dump(program, "copy-safetensors", source, copy)
        back = safetensors.numpy.load_file(copy)
        check(back.keys() == tensors.keys() and all(
            back[k].dtype == v.dtype and back[k].tobytes() == v.tobytes() for k, v in tensors.items()),
            f"safetensors {case}: our copy differs: {report}")


def peer_accepts(content):
    try:
        safetensors.deserialize(content)
        return True
    except Exception:  # the package raises its own and others
        return False


def safetensors_refusals(program, directory, rng):
    """Damaged headers. We are stricter on purpose in three things only: duplicate keys, unknown members of a tensor,
    and dtypes that nibble has no use for; so what we accept the package must accept."""
    source, damaged, out = (directory / n for n in ("c.st", "d.st", "d.bin"))
    agreed = 0
    for case in range(150):
        write_safetensors(source, rng)
        content = bytearray(source.read_bytes())
        length = struct.unpack("<Q", content[:8])[0]
        position = int(rng.integers(0, min(len(content), length + 8)))
        kind = case % 3
        if kind == 0:
            content[position] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            del content[position]
        else:
            content = content[:position]
        damaged.write_bytes(content)
        ours, report = dump(program, "safetensors", damaged, out)
        theirs = peer_accepts(bytes(content))
        check(theirs or not ours, f"refusal {case}: we accept what safetensors refuses")
        reasons = ("unknown key", "is not supported", "duplicate key")
        check(ours or not theirs or any(r in report for r in reasons), f"refusal {case}: only we refuse: {report}")
        agreed += ours == theirs
    check(agreed > 100, f"refusals: only {agreed} of 150 verdicts agree")


def gguf_refusals(program, directory, rng):
    """The gguf package validates little and may hang on hostile counts: only truncation is compared with it."""
    source, damaged, out = (directory / n for n in ("c.gguf", "d.gguf", "d.bin"))
    for case in range(40):
        write_gguf(source, rng)
        content = source.read_bytes()
        data_end = max(t.data_offset + t.n_bytes for t in gguf.GGUFReader(source).tensors)
        damaged.write_bytes(content[:int(rng.integers(0, data_end))])
        accepted, report = dump(program, "gguf", damaged, out)
        check(not accepted and "d.gguf" in report and "offset" in report, f"cut gguf {case}: {report}")


def main():
    program = pathlib.Path(sys.argv[1]) / "tests/formats/formats_dump"
    rng = np.random.default_rng(20240607)
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        gguf_cases(program, directory, rng)
        safetensors_cases(program, directory, rng)
        safetensors_refusals(program, directory, rng)
        gguf_refusals(program, directory, rng)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
