"""Writing ONNX files, and reading and checking them."""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto
from onnx.external_data_helper import convert_model_to_external_data, write_external_data_tensors

from bench.errors import BenchError
from bench.export.messages import short
from bench.store import files
from bench.store.exports import refuse_damaged
from bench.store.files import sha256_of, storage_errors

if TYPE_CHECKING:
    from pathlib import Path

# A protocol buffer cannot be larger; external data lies beside the file from there on.
ONE_FILE_BYTES = 2**31 - 1
_BESIDE = re.compile(r"should be stored in (.+), but it is not")
_LINKED = re.compile(r"should be stored in (.+), but it (?:is a symbolic link|has multiple hard)")
WEIGHTS = "weights_sha256"  # property of a file whose weights lie beside it

_PRECISIONS = {
    TensorProto.FLOAT: "fp32",
    TensorProto.FLOAT16: "fp16",
    TensorProto.BFLOAT16: "bf16",
    TensorProto.DOUBLE: "fp64",
}
_QUANTISED = re.compile("Quantize|Integer|QLinear|QGemm|QAttention")


def save(proto: onnx.ModelProto, path: Path, *, limit: int = ONE_FILE_BYTES) -> None:
    """Write a model as one file, or with its weights beside it where one would be too large.

    The weights' SHA-256 is then among the file's properties, so that the file's own
    SHA-256 still stands for both.

    Args:
        proto: the model; its weights are moved out of it if the file is split.
        path: a file that does not exist yet; weights go to `NAME.data` beside it.
        limit: largest size of one file in bytes.

    Raises:
        StorageError: it cannot be written.
    """
    with storage_errors(path):
        if proto.ByteSize() < limit:
            files.disk.write(path, proto.SerializeToString(deterministic=True))
            return
        beside = f"{path.name}.data"
        convert_model_to_external_data(proto, location=beside)
        proto = write_external_data_tensors(proto, str(path.parent))
        onnx.helper.set_model_props(
            proto,
            {p.key: p.value for p in proto.metadata_props}
            | {WEIGHTS: sha256_of(path.parent / beside)},
        )
        files.disk.write(path, proto.SerializeToString(deterministic=True))


def check(path: Path) -> None:
    """Run ONNX's checker in full mode, shape inference included.

    Raises:
        BenchError: the file is not sound.
    """
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # checker and shape inference raise classes of their own
        if absent := _BESIDE.search(str(error)):
            raise BenchError(
                f"{path.name} has weights in {absent[1]}, which is no file: copy that, too"
            ) from error
        if linked := _LINKED.search(str(error)):
            raise BenchError(
                f"{path.name} has weights in {linked[1]}, which is a link, and onnx refuses links: "
                f"copy the file and its weights with cp -L into a folder of their own"
            ) from error
        if "data from external tensors" in str(error):
            raise BenchError(
                f"{path.name} keeps small tensors (axes, sizes) outside the file, where ONNX "
                "Runtime does not read them: save it with onnx.save(onnx.load(FILE), NEW, "
                "save_as_external_data=True, size_threshold=1024)"
            ) from error
        if "higher than the checker's" in str(error):
            raise BenchError(
                f"{path.name} is newer than onnx {onnx.__version__} reads: {short(error)} Upgrade "
                "onnx, or save the file with an older ir_version"
            ) from error
        raise BenchError(f"{path.name} is not a valid ONNX file: {short(error)}") from error


def onnx_sha256(path: Path) -> str:
    """Return the SHA-256 of a valid file, or of the SHA-256s of it and its external data.

    A file written by `save` holds that of its external data, so that its own is enough.

    Raises:
        BenchError: external data is missing.
    """
    proto = onnx.load(str(path), load_external_data=False)
    tensors = onnx.external_data_helper._get_all_tensors(proto)
    external = [t for t in tensors if onnx.external_data_helper.uses_external_data(t)]
    locations = {onnx.external_data_helper.ExternalDataInfo(t).location for t in external}
    own = sha256_of(path)
    try:
        parts = [sha256_of(path.parent / location) for location in sorted(locations)]
    except OSError as error:
        raise BenchError(f"cannot read {error.filename}, external data of {path}") from None
    if parts in ([], [p.value for p in proto.metadata_props if p.key == WEIGHTS]):
        return own
    return hashlib.sha256(" ".join([own, *parts]).encode()).hexdigest()


def load(path: Path) -> onnx.ModelProto:
    """Read and check a user's file.

    Raises:
        BenchError: it is missing, truncated or not valid ONNX, or it is a damaged export of a
            results folder.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BenchError(f"cannot read {path}: {error.strerror}") from None
    refuse_damaged(path)
    try:
        proto = onnx.load_from_string(content)
    except DecodeError:
        raise BenchError(
            f"{path} is no ONNX file, or was cut off ({len(content):,} bytes): "
            "export or copy it again"
        ) from None
    if not proto.graph.node or not proto.opset_import:
        raise BenchError(f"{path} is no ONNX file: it holds no graph; export it again")
    check(path)
    return proto


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return a graph's inputs, without the weights that older files list among them."""
    weights = {tensor.name for tensor in graph.initializer}
    return [value for value in graph.input if value.name not in weights]


def precision_of(graph: onnx.GraphProto) -> str:
    """Return int8 for a graph with quantised operators, else the type of most of its weights.

    That is fp32, fp16, bf16 or fp64; fp32 without weights.
    """
    if any(_QUANTISED.search(node.op_type) for node in graph.node):
        return "int8"
    constants = (
        attribute.t
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    )
    sizes = Counter({"fp32": 0})
    for tensor in (*graph.initializer, *constants):
        if tensor.data_type in _PRECISIONS:
            sizes[_PRECISIONS[tensor.data_type]] += math.prod(tensor.dims)
    return sizes.most_common(1)[0][0]
