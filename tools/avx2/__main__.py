"""Copy a virtual environment whose libraries take this processor for one with AVX2 only.

    pip install capstone
    python tools/avx2 .venv /tmp/avx2
    /tmp/avx2/run bench doctor

A library asks for the processor's instruction sets by the instruction CPUID. Variables such as
`ONEDNN_MAX_CPU_ISA` restrict some libraries; ONNX Runtime's and OpenVINO's kernels have none. So in
the copy each CPUID becomes UD0, an instruction of the same length that raises SIGILL and that
compilers do not emit. A preloaded library (`answer.c`) answers the signal as if there were no
AVX-512, VNNI, bf16 and AMX. The speed is that of this processor's AVX2 units, not of an older
processor's.

For Linux on x86-64, with gcc. Without root, `unshare` needs user namespaces.
"""

from __future__ import annotations

import argparse
import os
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

HIDDEN = ("avx512", "avx_vnni", "amx_", "avx10")  # how names in /proc/cpuinfo begin
CPUID, UD0 = b"\x0f\xa2", b"\x0f\xff"
IN_PYTHON = ((rb"\x0f\xa2", rb"\x0f\xff"), (rb"\x0F\xA2", rb"\x0F\xFF"))  # py-cpuinfo's own code
PATTERNS = (
    *("torch/lib/libtorch*.so", "torch/lib/libc10.so", "onnxruntime/capi/*.so"),
    *("openvino/libs/lib*.so*", "numpy/**/*.so", "numpy.libs/*.so*", "scipy.libs/*.so*"),
)
EXECUTABLE, LOADED = 1, 1  # of a segment: the flag, and the type
BEFORE, AFTER = range(24, 56), 16  # bytes around a candidate; reading starts at each of 32 places
AGREED = 8  # from so many of these places the instruction has to be found

RUN = """#!/bin/bash
# Run a command of the copied environment on "this processor with AVX2 only".
here=$(cd "$(dirname "$0")" && pwd)
[ "$(id -u)" = 0 ] && how=-m || how=-Urm
exec unshare $how bash -c 'mount --bind "$0/cpuinfo" /proc/cpuinfo &&
  PATH="$0/venv/bin:$PATH" LD_PRELOAD="$0/answer.so" exec "$@"' "$here" "$@"
"""


def code(library: bytes) -> Iterator[tuple[int, int]]:
    """Yield where an ELF file's executable segments begin and end."""
    (table,) = struct.unpack_from("<Q", library, 32)
    size, count = struct.unpack_from("<HH", library, 54)
    for entry in range(table, table + size * count, size):
        kind, flags, offset = struct.unpack_from("<IIQ", library, entry)
        (length,) = struct.unpack_from("<Q", library, entry + 32)
        if kind == LOADED and flags & EXECUTABLE:
            yield offset, offset + length


def is_instruction(text: bytes, place: int) -> bool:
    """Return whether the bytes at *place* are a CPUID, not a part of another instruction.

    Machine code read from a wrong place soon falls into step with the right one, so most of the
    places before it lead to an instruction that begins here.
    """
    import capstone

    reader = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    met = 0
    for begin in (place - before for before in BEFORE if before <= place):
        for address, _, name, _ in reader.disasm_lite(text[begin : place + AFTER], begin):
            if address >= place:
                met += address == place and name == "cpuid"
                break
    return met >= AGREED


def without_cpuid(library: bytes) -> tuple[bytes, int]:
    """Return the file with UD0 for CPUID, and how many there were."""
    edited, count = bytearray(library), 0
    for begin, end in code(library):
        text = library[begin:end]
        place = text.find(CPUID)
        while place >= 0:
            if is_instruction(text, place):
                edited[begin + place : begin + place + 2] = UD0
                count += 1
            place = text.find(CPUID, place + 2)
    return bytes(edited), count


def replace(path: Path, content: bytes) -> None:
    """Write a file in place of a hard link, whose other name keeps its content."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(content)
    shutil.copymode(path, new)
    new.replace(path)


def edit(packages: Path) -> int:
    """Replace the CPUIDs of an environment's libraries, and of py-cpuinfo; return their number."""
    replaced = 0
    for path in sorted({path for pattern in PATTERNS for path in packages.glob(pattern)}):
        library = path.read_bytes()
        if path.is_symlink() or library[:4] != b"\x7fELF":
            continue
        content, count = without_cpuid(library)
        if count:
            replace(path, content)
            print(f"{count:4} in {path.relative_to(packages)}", flush=True)
            replaced += count
    for path in packages.glob("cpuinfo/cpuinfo.py"):
        content = path.read_bytes()
        for old, new in IN_PYTHON:
            content = content.replace(old, new)
        replace(path, content)
    return replaced


def redirect(script: Path, environment: Path, copied: Path) -> None:
    """Let a script of *environment* run the interpreter of *copied*, whatever path its line has."""
    first, newline, rest = script.read_bytes().partition(b"\n")
    interpreter = Path(os.fsdecode(first.removeprefix(b"#!").strip()))
    if first.startswith(b"#!") and interpreter.parent.resolve() == (environment / "bin").resolve():
        line = b"#!" + os.fsencode(copied / "bin" / interpreter.name)
        replace(script, line + newline + rest)


def main(*words: str) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("environment", type=Path, help="virtual environment to copy")
    parser.add_argument("folder", type=Path, help="new folder, on the same disk")
    options = parser.parse_args(words)
    folder: Path = options.folder
    folder.mkdir(parents=True)
    copied = folder / "venv"
    shutil.copytree(options.environment, copied, symlinks=True, copy_function=os.link)
    if not sum(map(edit, copied.glob("lib/python3*/site-packages"))):
        sys.exit(f"{options.environment} holds none of the libraries")
    for script in (copied / "bin").iterdir():
        if script.is_file() and not script.is_symlink():
            redirect(script, options.environment, copied.resolve())
    source = Path(__file__).with_name("answer.c")
    library = folder / "answer.so"
    subprocess.run(["gcc", "-O2", "-shared", "-fPIC", source, "-o", library], check=True)
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    kept = (" ".join(w for w in line.split(" ") if not w.startswith(HIDDEN)) for line in lines)
    (folder / "cpuinfo").write_text("\n".join(kept) + "\n", encoding="utf-8")
    run = folder / "run"
    run.write_text(RUN, encoding="utf-8")
    run.chmod(0o755)
    print(f"{run} COMMAND runs a command there")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
