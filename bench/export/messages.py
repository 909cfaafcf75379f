"""What ONNX's libraries say, in one line, with the way on where it is known."""

from __future__ import annotations

import re

_LENGTH = 200
# What is newer than the runtime → how it says so, and the way on.
_TOO_NEW = {
    "IR version": (
        r"Unsupported model IR version: (\d+), max supported IR version: (\d+)",
        "save it with that ir_version",
    ),
    "opset": (
        r"Opset (\d+) is under development.* is till opset (\d+)",
        "export it for that opset (or use onnx.version_converter)",
    ),
}


def short(error: BaseException) -> str:
    """Return the first line of a message without its prefixes; the way on where it is known."""
    text = str(error).strip() or type(error).__name__
    for what, (pattern, way_on) in _TOO_NEW.items():
        if found := re.search(pattern, text, re.DOTALL):
            return (
                f"its {what} {found[1]} is newer than this runtime's {found[2]}: {way_on}, or "
                "upgrade onnxruntime"
            )
    if "Cannot parse data from external tensor" in text:
        return (
            "sizes that its graph needs lie in external data, where they are not read: save it "
            "again with onnx's default size_threshold=1024, which keeps small tensors in the file"
        )
    return text.partition("\n")[0].rpartition(" : ")[2][:_LENGTH]
