"""Writes the seeds of `tests/fuzz_files.rs`: small files by NumPy and by the safetensors package, and broken ones.

    pip install numpy safetensors
    python tests/fuzz/generate.py
"""

import json
import struct
from pathlib import Path

import numpy as np
from safetensors.numpy import save

here = Path(__file__).parent
npy, st = here / "npy", here / "safetensors"
npy.mkdir(exist_ok=True)
st.mkdir(exist_ok=True)

# Files that NumPy wrote: entry i in C order is i, in every one of them.
count = np.arange(6).reshape(2, 3)
for name in ["b1", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]:
    values = count % 2 if name == "b1" else count
    np.save(npy / f"little_{name}.npy", values.astype(np.dtype("<" + name)))
    if name[1] != "1":
        np.save(npy / f"big_{name}.npy", values.astype(np.dtype(">" + name)))
for shape in [(4,), (1, 1), (2, 3, 4), (2, 1, 3, 2), (2, 2, 1, 2, 2), (2, 1, 2, 1, 2, 2), (0,), (3, 0, 2)]:
    values = np.arange(np.prod(shape), dtype="<f4").reshape(shape)
    name = "x".join(map(str, shape))
    np.save(npy / f"shape_{name}.npy", values)
    np.save(npy / f"fortran_{name}.npy", np.asfortranarray(values))
for version in [(2, 0), (3, 0)]:
    with open(npy / f"version_{version[0]}.npy", "wb") as file:
        np.lib.format.write_array(file, count.astype("<f8"), version=version)

# A single number.
np.save(npy / "order_0.npy", np.float64(1.0))

# Arrays that tensors do not hold.
np.save(npy / "bad_complex.npy", np.ones((2, 2), dtype="<c16"))
np.save(npy / "bad_records.npy", np.zeros(2, dtype=[("a", "<f4"), ("b", "<i4")]))
np.save(npy / "bad_objects.npy", np.array([{}], dtype=object), allow_pickle=True)
np.save(npy / "bad_strings.npy", np.array(["ab"]))
np.save(npy / "bad_times.npy", np.array(["2020-01-01"], dtype="<M8[D]"))


# Files that NumPy would not write.
def raw(name, header, data=b"", version=b"\x01\x00", length=None):
    header = header.encode()
    width = "<H" if version[0] == 1 else "<I"
    head = struct.pack(width, len(header) if length is None else length)
    (npy / f"{name}.npy").write_bytes(b"\x93NUMPY" + version + head + header + data)


good = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }\n"
raw("odd_no_padding", good, bytes(16))
raw("odd_order_of_keys", '{"shape":(2L,),"fortran_order":True,"descr":"<f8"}', bytes(16))
raw("bad_truncated", good, bytes(15))
raw("bad_over_long", good, bytes(17))
raw("bad_version", good, bytes(16), version=b"\x04\x00")
raw("bad_huge_header", good, bytes(16), version=b"\x02\x00", length=2**32 - 1)
raw("bad_huge_shape", good.replace("2,", "1000000000000,"), bytes(16))
raw("bad_overflow", good.replace("2,", "4294967296, 4294967296"), bytes(16))
raw("bad_overflow_empty", good.replace("2,", "0, 4294967296, 4294967296"), bytes(16))
raw("bad_key", good.replace("shape", "shade"), bytes(16))
raw("bad_twice", good.replace("}", "'descr': '<f4'}"), bytes(16))
(npy / "bad_empty.npy").write_bytes(b"")
(npy / "bad_magic.npy").write_bytes(b"PK\x03\x04" + bytes(100))

# Files that the safetensors package wrote.
save_to = lambda name, tensors, metadata=None: (st / f"{name}.safetensors").write_bytes(save(tensors, metadata))
save_to("one", {"core": np.arange(6, dtype="<f4").reshape(2, 3)})
types = ["bool", "u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f2", "f4", "f8"]
save_to("types", {f"t.{t}": (count % 2 if t == "bool" else count).astype(t) for t in types}, {"step": "12", "by": 'a "test"\n'})
save_to("empty", {})
save_to("order_0", {"number": np.array(1.5), "none": np.zeros((0, 3), dtype="<f8")})


def header(name, value, data=b"", length=None):
    text = value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode()
    (st / f"{name}.safetensors").write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


info = lambda dtype, shape, start, end: {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
header("odd_bf16_and_escapes", b'{"a\\u0062\\"c":{"dtype":"BF16","shape":[2],"data_offsets":[4,8]},"d":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}}  ', bytes(range(8)))
header("odd_f8", {"a": info("F8_E4M3", [4], 0, 4)}, bytes(4))
header("bad_truncated", {"a": info("F32", [4], 0, 16)}, bytes(15))
header("bad_over_long", {"a": info("F32", [4], 0, 16)}, bytes(17))
header("bad_gap", {"a": info("F32", [1], 0, 4), "b": info("F32", [1], 8, 12)}, bytes(12))
header("bad_span", {"a": info("F32", [4], 0, 8)}, bytes(8))
header("bad_overflow", {"a": info("F32", [2**32, 2**32], 0, 8)}, bytes(8))
header("bad_dtype", {"a": info("Q7", [1], 0, 8)}, bytes(8))
header("bad_huge_header", {}, length=2**63)
header("bad_twice", b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"\\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}', bytes(1))
header("bad_twice_metadata", b'{"__metadata__":{"a":"1","a":"2"}}')
header("bad_json", b'{"a":')
header("bad_text", b'{"\xff":1}')
(st / "bad_empty.safetensors").write_bytes(b"")
