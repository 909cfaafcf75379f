"""A network's architecture as an SVG picture, narrow enough for a phone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

if TYPE_CHECKING:
    from bench.networks.traced_architecture import Block, Fork, Network

WIDTH = 320
# For a separate file; on a page, the style sheet colours it for light and dark.
_STYLE = """
text { font: 11px sans-serif; fill: #1a1d21; }
.shape, .label { fill: #595f69; }
.name, .count { font-weight: bold; }
.block, .flow { fill: none; stroke: #b5bac2; }
.operation { fill: #f3f5f8; stroke: #b5bac2; }
.head { fill: #595f69; }
.shortcut { fill: none; stroke: #0b5cad; stroke-width: 1.8; }
.join { fill: #fff; stroke: #0b5cad; stroke-width: 1.5; }
.label { paint-order: stroke; stroke: #fff; stroke-width: 4px; stroke-linejoin: round; }
"""
_LEFT, _RIGHT = 6, WIDTH - 6
_LINE, _GAP = 20, 8  # height of a line of operations, and of the gap between two
_MIDDLE = 110  # x of the branch
_BOX = 196  # width of a line's box
_SHORTCUT = 262  # x of the shortcut
_HEAD = 22  # height of a block's name and shape
_ARC = 10  # radius of a shortcut's corners
_CHARACTERS = 15  # that fit beside the branch
_JOIN = 9  # half the height of a join


@dataclass
class _Canvas:
    """An SVG element, filled from top to bottom."""

    svg: ET.Element
    y: float = 4.0

    def add(self, tag: str, **attributes: object) -> ET.Element:
        names = {k.rstrip("_").replace("_", "-"): _spell(v) for k, v in attributes.items()}
        return ET.SubElement(self.svg, tag, names)

    def text(self, text: str, x: float, y: float, class_: str = "", anchor: str = "middle") -> None:
        self.add("text", x=x, y=y, class_=class_, text_anchor=anchor).text = text

    def box(self, x: float, width: float, height: float, class_: str, corner: float) -> None:
        """Add a rectangle from the current height down."""
        self.add("rect", class_=class_, x=x, y=self.y, width=width, height=height, rx=corner)

    def arrow(self, end: float) -> None:
        """Add an arrow of the branch from the current height down to *end*, and go there."""
        self.add("path", class_="flow", d=f"M {_MIDDLE} {_spell(self.y)} V {_spell(end)}")
        self.add("path", class_="head", d=f"M {_MIDDLE} {_spell(end)} l -3.5 -6 h 7 z")
        self.y = end


def draw(network: Network, key: str, title: str, *, alone: bool = False) -> str:
    """Return a network as an SVG picture, with every text escaped.

    Args:
        network: the network.
        key: id of the picture's title and prefix of its description's, unique on a page.
        title: title of the picture.
        alone: whether it is a separate file, with its own colours.

    Returns:
        An `svg` element, 320 px wide.
    """
    svg = ET.Element(
        "svg", {"class": "network", "role": "img", "aria-labelledby": f"{key} {key}-d"}
    )
    ET.SubElement(svg, "title", {"id": key}).text = title
    description = ET.SubElement(svg, "desc", {"id": f"{key}-d"})
    if alone:
        svg.set("xmlns", "http://www.w3.org/2000/svg")
        ET.SubElement(svg, "style").text = _STYLE
    canvas = _Canvas(svg)
    canvas.text(f"input {shape_text(network.input_shape)}", _MIDDLE, canvas.y + 12, "shape")
    canvas.y += 18
    for block in network.blocks:
        _draw_block(canvas, block)
    description.text = describe(network)
    height = canvas.y + 4
    svg.set("viewBox", f"0 0 {WIDTH} {_spell(height)}")
    svg.set("width", str(WIDTH))
    svg.set("height", _spell(height))
    return ET.tostring(svg, encoding="unicode")


def describe(network: Network) -> str:
    """Describe the diagram in words, for screen readers."""
    parts = [f"Input {shape_text(network.input_shape)}."]
    for block in network.blocks:
        times = f", {block.count} times" if block.count > 1 else ""
        inside = "; ".join(_words(part) for part in block.parts)
        parts.append(f"{block.name}{times}: {inside}; gives {shape_text(block.shape)}.")
    return " ".join(parts)


def shape_text(shape: tuple[int, ...]) -> str:
    """Format a shape: 64×56×56."""
    return "×".join(map(str, shape))


def _words(part: str | Fork) -> str:
    if isinstance(part, str):
        return part
    paths = " and ".join(", ".join(path) or "identity" for path in part.shortcuts)
    return f"{', '.join(part.branch)}; joined ({part.join}) with the shortcut: {paths}"


def _draw_block(canvas: _Canvas, block: Block) -> None:
    canvas.arrow(canvas.y + _GAP)
    top = canvas.y
    frame = canvas.add("rect", class_="block", x=_LEFT, y=top, width=_RIGHT - _LEFT, rx=6)
    last = f"{block.name} and the {block.count - 1} after it" if block.count > 1 else block.name
    ET.SubElement(frame, "title").text = last
    canvas.text(block.name, _LEFT + 8, top + 15, "name", "start")
    canvas.text(shape_text(block.shape), _RIGHT - 8, top + 15, "shape", "end")
    if block.count > 1:
        canvas.text(f"× {block.count}", (_LEFT + _RIGHT) / 2, top + 15, "count")
    canvas.y = top + _HEAD
    for number, part in enumerate(block.parts):
        if number:
            canvas.arrow(canvas.y + _GAP)
        if isinstance(part, str):
            _draw_line(canvas, part)
        else:
            _draw_fork(canvas, part)
    canvas.y += _GAP
    frame.set("height", _spell(canvas.y - top))


def _draw_line(canvas: _Canvas, text: str) -> None:
    canvas.box(_MIDDLE - _BOX / 2, _BOX, _LINE, "operation", 3)
    canvas.text(text, _MIDDLE, canvas.y + 14)
    canvas.y += _LINE


def _draw_fork(canvas: _Canvas, fork: Fork) -> None:
    start = canvas.y
    for text in fork.branch:
        canvas.arrow(canvas.y + _GAP)
        _draw_line(canvas, text)
    label = _label(fork.shortcuts)
    # The label must fit beside the branch.
    canvas.arrow(max(canvas.y, start + 14 * len(label) + 2 * _ARC + 8) + _GAP)
    half = _JOIN if len(fork.join) == 1 else 6 + 3 * len(fork.join)
    join, end = canvas.y + _JOIN, _MIDDLE + half + 1
    path = (
        f"M {_MIDDLE} {_spell(start + 2)} H {_SHORTCUT - _ARC} q {_ARC} 0 {_ARC} {_ARC} "
        f"V {_spell(join - _ARC)} q 0 {_ARC} {-_ARC} {_ARC} H {end}"
    )
    canvas.add("path", class_="shortcut", d=path)
    canvas.add("path", class_="head", d=f"M {end} {_spell(join)} l 6 -3.5 v 7 z")
    canvas.box(_MIDDLE - half, 2 * half, 2 * _JOIN, "join", _JOIN)
    canvas.text(fork.join, _MIDDLE, join + 4, "sign")
    for number, text in enumerate(label):
        y = (start + join) / 2 - 7 * len(label) + 10 + 14 * number
        canvas.text(text, _SHORTCUT, y, "label")
    canvas.y = join + _JOIN


def _label(shortcuts: tuple[tuple[str, ...], ...]) -> list[str]:
    """Return the operations of shortcuts in lines that do not run into the branch."""
    lines: list[str] = []
    for path in shortcuts:
        lines += ["and"] * bool(lines)
        lines += [text for line in path or ("identity",) for text in _broken(line)]
    return lines


def _broken(line: str) -> list[str]:
    """Break a line between operations, and a long operation after its name."""
    found: list[str] = []
    for text in line.split(" · "):
        for piece in text.split(", ", 1) if len(text) > _CHARACTERS else [text]:
            if found and len(f"{found[-1]} · {piece}") <= _CHARACTERS:
                found[-1] += f" · {piece}"
            else:
                found.append(piece)
    return found


def _spell(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
